//! Weights from end to end through the public interface: writing, opening, refusing, converting, accounting.

mod common;
mod files;
mod fuzz;
mod headers;
mod index;
mod loader;
mod views;
mod writers;
