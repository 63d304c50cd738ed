//! An interpreter of PTX, stricter than silicon.
#![allow(dead_code)]

mod fault;
mod memory;
