//! What the interpreter refuses to do.

use std::fmt;

/// Where in an address space an access went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Memory of the device.
    Global,
    /// Memory of a block.
    Shared,
    /// Parameters of the entry.
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
    /// Which rule was broken.
    pub kind: FaultKind,
    /// The address, the bytes, the variable; for races the other thread.
    pub detail: String,
}

impl Refusal {
    /// A refusal of a kind, told in `detail`.
    pub fn new(kind: FaultKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

/// The rule that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// An access outside of what was bound.
    OutOfBounds,
    /// An address that is no multiple of the access.
    Misaligned,
    /// Bytes that nothing wrote.
    Uninitialised,
    /// A register that nothing wrote.
    UndefinedRegister,
    /// Two accesses that nothing orders.
    Race,
    /// Threads that wait for ones that never come.
    Barrier,
    /// The result of an asynchronous operation that was not waited for.
    Unfinished,
    /// What silicon can do and the interpreter cannot.
    Unsupported,
    /// What the ISA leaves undefined.
    Invalid,
    /// Nothing can go on.
    Deadlock,
    /// A source that is no program.
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
    /// Name of the entry point.
    pub entry: String,
    /// Line of the source, from 1.
    pub line: usize,
    /// The statement.
    pub text: String,
    /// Which block.
    pub block: [u32; 3],
    /// Which thread of it, counted over x, then y, then z.
    pub thread: u32,
    /// What was refused.
    pub refusal: Refusal,
}
