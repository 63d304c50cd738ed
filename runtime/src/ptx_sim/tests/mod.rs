//! Whole programs.

mod faults;
