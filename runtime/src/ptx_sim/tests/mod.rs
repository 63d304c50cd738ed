//! Programs for every instruction.

mod sm_90a;
