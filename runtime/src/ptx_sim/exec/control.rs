//! Where to go on.

use super::machine::{Flow, Stop};
use crate::ptx_sim::fault::FaultKind;
use crate::ptx_sim::parse::Type;
use crate::ptx_sim::program::{Cursor, Decoded, Op};

/// Decodes a jump, an end or a pause.
pub fn decode(s: &mut Cursor<'_, '_>) -> Decoded {
    let uniform = s.flag("uni");
    match s.base {
        "bra" => {
            s.expect(1)?;
            Ok(Op::Branch { target: s.label(0)?, uniform })
        }
        // an entry has nobody to return to
        "ret" | "exit" if !(uniform && s.base == "exit") => {
            s.expect(0)?;
            Ok(Op::Exit)
        }
        "trap" if !uniform => {
            s.expect(0)?;
            Ok(Op::Act(Box::new(|_| Err(Stop::new(FaultKind::Invalid, "the kernel trapped")))))
        }
        "nanosleep" if !uniform => {
            if s.ty()? != Type::U32 {
                return s.unknown();
            }
            s.expect(1)?;
            s.src(0, Type::U32)?;
            Ok(Op::Act(Box::new(|_| Ok(Flow::Poll))))
        }
        _ => s.unknown(),
    }
}
