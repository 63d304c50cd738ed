//! What instructions do. Each group of instructions is a file that decodes and executes them.
//!
//! Decoding gives an [`Op`](super::program::Op): a [`LaneFn`] for what every lane does by itself and cannot fail, an [`ActFn`] for everything that
//! touches memory, other lanes or other warps.

mod approximate;
mod async_copy;
mod atomics;
mod block;
mod bulk;
mod compare;
mod control;
mod convert;
mod float;
mod half;
mod in_flight;
mod integer;
mod lanes;
mod logic;
mod machine;
mod matrix;
mod mbarrier;
mod memory;
mod moves;
mod registers;
mod round;
mod shuffle;
mod sync;
mod warp;
mod warpgroups;
mod wgmma;

pub use block::{Block, Patience, Round, Setup};
pub use lanes::LaneFn;
pub use machine::{ActFn, Launch, Map};
pub use registers::{LANES, Place, Reg};

use super::program::{Cursor, Decoded};

/// Decodes one statement: the one list of all instructions.
pub fn decode(s: &mut Cursor<'_, '_>) -> Decoded {
    match s.base {
        "add" | "sub" | "mul" | "mad" | "div" | "rem" | "min" | "max" | "neg" | "abs" | "fma" | "sqrt"
        | "rcp" | "rsqrt" | "sin" | "cos" | "lg2" | "ex2" | "tanh" | "testp" | "copysign" => arithmetic(s),
        "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" | "shf" | "lop3" | "prmt" | "bfe" | "bfi"
        | "popc" | "clz" | "brev" | "bfind" => logic::decode(s),
        "setp" | "set" | "selp" | "slct" => compare::decode(s),
        "mov" => moves::decode(s),
        "cvt" => convert::decode(s),
        "cvta" => memory::decode_cvta(s),
        "prefetch" => prefetch(s),
        "ld" | "st" => memory::decode(s),
        "atom" | "red" => atomics::decode(s),
        "bra" | "ret" | "exit" | "trap" | "nanosleep" => control::decode(s),
        "shfl" | "vote" | "activemask" | "redux" | "elect" => shuffle::decode(s),
        "bar" | "barrier" | "membar" | "fence" => sync::decode(s),
        "cp" => async_copy::decode(s),
        "mbarrier" => mbarrier::decode(s),
        "wgmma" | "setmaxnreg" => wgmma::decode(s),
        "mma" | "ldmatrix" | "stmatrix" => matrix::decode(s),
        _ => s.unknown(),
    }
}

/// A tensor map or what an address points at.
fn prefetch(s: &mut Cursor<'_, '_>) -> Decoded {
    if s.flag("tensormap") { bulk::decode_prefetch(s) } else { memory::decode(s) }
}

/// Arithmetic goes by type: whole numbers, floats, halves, and what is only approximate.
fn arithmetic(s: &mut Cursor<'_, '_>) -> Decoded {
    use super::parse::Meaning;
    let ty = s.ty()?;
    let approximate = matches!(s.base, "rsqrt" | "sin" | "cos" | "lg2" | "ex2" | "tanh")
        || (matches!(s.base, "div" | "sqrt" | "rcp") && s.is_approximate());
    match ty.meaning {
        _ if approximate => approximate::decode(s, ty),
        Meaning::Unsigned | Meaning::Signed => integer::decode(s, ty),
        Meaning::Float if ty.bits >= 32 => float::decode(s, ty),
        Meaning::Float | Meaning::FloatPair | Meaning::Brain | Meaning::BrainPair => half::decode(s, ty),
        _ => s.unknown(),
    }
}
