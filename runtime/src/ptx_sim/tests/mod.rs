//! Programs for every instruction, and kernels with planted faults.

mod faults;
mod sm_90a;
