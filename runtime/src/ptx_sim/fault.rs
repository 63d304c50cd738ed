//! What the interpreter refuses to do.

use std::fmt;

/// Where in an address space an access went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Memory of the device.
    Global,
    /// Memory of a block.
    Shared,
    /// Parameters of an entry.
    Param,
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Global => "global",
            Self::Shared => "shared",
            Self::Param => "param",
        })
    }
}

/// A refusal, before it is known where in the program it happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {detail}")]
pub struct Refusal {
    /// What was wrong.
    pub kind: FaultKind,
    /// Address, bytes and names.
    pub detail: String,
}

/// Kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// An access outside all memory that the launch was given.
    OutOfBounds,
    /// An address that is not a multiple of what the access needs.
    Misaligned,
    /// A read of memory that nothing wrote.
    Uninitialised,
    /// A use of a register that nothing wrote.
    UndefinedRegister,
    /// Two accesses of shared memory that nothing orders.
    Race,
    /// A barrier that some threads cannot reach.
    Barrier,
    /// A use of what an asynchronous instruction has not delivered.
    Unfinished,
    /// An instruction or a form of one that the interpreter does not have.
    Unsupported,
    /// Something the instruction set forbids.
    Invalid,
    /// Nobody can go on.
    Deadlock,
    /// A program that cannot be read.
    Source,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfBounds => "out of bounds",
            Self::Misaligned => "misaligned",
            Self::Uninitialised => "read of memory never written",
            Self::UndefinedRegister => "undefined register",
            Self::Race => "race in shared memory",
            Self::Barrier => "barrier not reached by all",
            Self::Unfinished => "asynchronous result used before its wait",
            Self::Unsupported => "not supported",
            Self::Invalid => "invalid",
            Self::Deadlock => "deadlock",
            Self::Source => "source",
        })
    }
}

/// A refusal with its place.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{entry}, line {line} `{text}`, block {block:?}, thread {thread}: {refusal}")]
pub struct Fault {
    /// The kernel.
    pub entry: String,
    /// Line of the source, from 1.
    pub line: usize,
    /// The instruction.
    pub text: String,
    /// The block.
    pub block: [u32; 3],
    /// The thread in the block.
    pub thread: u32,
    /// What was refused.
    pub refusal: Refusal,
}
