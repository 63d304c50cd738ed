//! Programs for the interpreter.

mod sm_90a;
