//! Programs for every instruction.
