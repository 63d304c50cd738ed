//! One statement while it is decoded: its modifiers and operands, taken one by one and checked.

use super::{Build, Constant, Instruction, NEVER, Op, Special};
use crate::ptx_sim::exec::Reg;
use crate::ptx_sim::parse::{Entry, Fit, Meaning, Operand, SourceError, Statement, Type};

/// What decoding gives, or what is wrong.
pub type Decoded<T = Op> = Result<T, String>;

/// A statement being decoded.
pub struct Cursor<'c, 'a> {
    /// Name of the instruction.
    pub base: &'a str,
    entry: &'c Entry<'a>,
    statement: &'c Statement<'a>,
    modifiers: Vec<&'a str>,
    build: &'c mut Build,
    reads: Vec<u16>,
    writes: Vec<u16>,
    /// What it writes, by any name.
    targets: Vec<u16>,
    /// Whether it reads and writes registers in its own time.
    is_tensor: bool,
}

/// An address: a register and a distance, or a number known when the source is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// A register of 64 bits.
    Long(Reg),
    /// A register of 32 bits.
    Word(Reg),
    /// An address of shared memory.
    Shared(u32),
    /// An offset in the parameters.
    Param(usize),
}

/// Decodes a statement.
pub fn instruction<'a>(
    entry: &Entry<'a>,
    statement: &Statement<'a>,
    build: &mut Build,
    decode: fn(&mut Cursor<'_, '_>) -> Decoded,
) -> Result<Instruction, SourceError> {
    let mut parts = statement.opcode.split('.');
    let base = parts.next().unwrap_or_default();
    let guard = statement.guard.map(|(number, negated)| (build.registers[number], !negated));
    let mut cursor = Cursor {
        base,
        entry,
        statement,
        modifiers: parts.collect(),
        build,
        reads: Vec::new(),
        writes: Vec::new(),
        targets: Vec::new(),
        is_tensor: false,
    };
    let op = decode(&mut cursor)
        .and_then(|op| cursor.done().map(|()| op))
        .map_err(|what| SourceError::new(statement.line, format!("`{}`: {what}", statement.text)))?;
    let (mut reads, writes) = (cursor.reads, cursor.writes);
    reads.sort_unstable();
    reads.dedup();
    let touches = if cursor.is_tensor { Vec::new() } else { [&*reads, &*cursor.targets].concat() };
    Ok(Instruction {
        guard,
        op,
        reads: reads.into(),
        writes: writes.into(),
        touches,
        reconverge: NEVER,
        line: statement.line,
        text: statement.text.split_whitespace().collect::<Vec<_>>().join(" ").into(),
    })
}

impl<'a> Cursor<'_, 'a> {
    /// Takes a modifier, wherever it stands.
    pub fn flag(&mut self, name: &str) -> bool {
        match self.modifiers.iter().position(|m| *m == name) {
            Some(at) => {
                self.modifiers.remove(at);
                true
            }
            None => false,
        }
    }

    /// Takes the one modifier out of several.
    pub fn one_of<'n>(&mut self, names: &[&'n str]) -> Option<&'n str> {
        names.iter().copied().find(|name| self.flag(name))
    }

    /// Takes a modifier that has to be there.
    pub fn need<'n>(&mut self, names: &[&'n str]) -> Decoded<&'n str> {
        self.one_of(names).ok_or_else(|| format!("needs one of .{}", names.join(", .")))
    }

    /// Takes every modifier that is a type, in order.
    pub fn types(&mut self) -> Vec<Type> {
        let types = self.modifiers.iter().filter_map(|m| Type::named(m)).collect();
        self.modifiers.retain(|m| Type::named(m).is_none());
        types
    }

    /// Takes the type of an instruction that has one.
    pub fn ty(&mut self) -> Decoded<Type> {
        match self.types()[..] {
            [ty] => Ok(ty),
            ref types => Err(format!("has {} types, expected one", types.len())),
        }
    }

    /// Whether the instruction asks for an approximation.
    pub fn is_approximate(&self) -> bool {
        self.modifiers.iter().any(|m| matches!(*m, "approx" | "full"))
    }

    /// Refuses modifiers that nothing took.
    pub fn done(&self) -> Decoded<()> {
        if self.modifiers.is_empty() {
            return Ok(());
        }
        Err(format!("modifier .{} is not known here", self.modifiers.join(", .")))
    }

    /// Refuses the instruction, or this form of it.
    pub fn unknown<T>(&self) -> Decoded<T> {
        Err(format!("`{}` is not known", self.statement.opcode))
    }

    /// Refuses an instruction that is newer than `.target`.
    pub fn since_sm_90(&self) -> Decoded<()> {
        if self.build.target.starts_with("sm_90") {
            return Ok(());
        }
        Err(format!("needs .target sm_90, found {}", self.build.target))
    }

    /// Refuses an instruction of one generation on any other.
    pub fn only_sm_90a(&self) -> Decoded<()> {
        if self.build.target == "sm_90a" {
            return Ok(());
        }
        Err(format!("needs .target sm_90a, found {}", self.build.target))
    }

    /// Refuses an instruction that is newer than `.version`.
    pub fn since_version(&self, major: u32, minor: u32) -> Decoded<()> {
        if self.build.version >= (major, minor) {
            return Ok(());
        }
        Err(format!(
            "needs .version {major}.{minor}, found {}.{}",
            self.build.version.0, self.build.version.1
        ))
    }

    /// How many operands there are.
    pub fn count(&self) -> usize {
        self.statement.operands.len()
    }

    /// Refuses any other number of operands.
    pub fn expect(&self, count: usize) -> Decoded<()> {
        self.expect_between(count, count)
    }

    /// Refuses a number of operands outside of a range.
    pub fn expect_between(&self, least: usize, most: usize) -> Decoded<()> {
        let found = self.count();
        if (least..=most).contains(&found) {
            return Ok(());
        }
        Err(format!("has {found} operands, expected {least} to {most}"))
    }

    /// An operand as written.
    pub fn operand(&self, at: usize) -> Decoded<&Operand<'a>> {
        self.statement.operands.get(at).ok_or_else(|| format!("has no operand {}", at + 1))
    }

    /// Type of the register that an operand is.
    pub fn register_type(&self, operand: &Operand<'a>) -> Option<Type> {
        match operand {
            Operand::Register(number) | Operand::Not(number) => Some(self.entry.registers[*number].ty),
            _ => None,
        }
    }

    fn register(&self, number: usize, ty: Type, fit: Fit) -> Decoded<Reg> {
        let register = &self.entry.registers[number];
        if ty.takes(register.ty, fit) {
            return Ok(self.build.registers[number]);
        }
        Err(format!("`{}` is {}, which does not go with {ty}", register.name, register.ty))
    }

    /// A register that is written.
    pub fn dst(&mut self, at: usize, ty: Type) -> Decoded<Reg> {
        let operand = self.operand(at)?.clone();
        self.dst_operand(&operand, ty, Fit::Same)
    }

    /// A register that is written.
    pub fn dst_operand(&mut self, operand: &Operand<'a>, ty: Type, fit: Fit) -> Decoded<Reg> {
        let reg = self.dst_unmarked(operand, ty, fit)?;
        self.writes.push(reg.id);
        Ok(reg)
    }

    /// A register of which the instruction itself says which lanes it wrote.
    pub fn dst_unmarked(&mut self, operand: &Operand<'a>, ty: Type, fit: Fit) -> Decoded<Reg> {
        match operand {
            Operand::Register(number) => {
                let reg = self.register(*number, ty, fit)?;
                self.targets.push(reg.id);
                Ok(reg)
            }
            _ => Err(format!("writes to what is no register of {ty}")),
        }
    }

    /// A register that the instruction uses in its own time, of which it says itself what it reads and writes.
    pub fn tensor_register(&mut self, operand: &Operand<'a>, ty: Type) -> Decoded<Reg> {
        let Operand::Register(number) = operand else { return Err(format!("needs a register of {ty}")) };
        let reg = self.register(*number, ty, Fit::Same)?;
        self.is_tensor = true;
        self.build.tensor_registers.insert(reg.id);
        Ok(reg)
    }

    /// A register or a constant that is read.
    pub fn src(&mut self, at: usize, ty: Type) -> Decoded<Reg> {
        let operand = self.operand(at)?.clone();
        self.src_operand(&operand, ty, Fit::Same)
    }

    /// A register or a constant that is read.
    pub fn src_operand(&mut self, operand: &Operand<'a>, ty: Type, fit: Fit) -> Decoded<Reg> {
        match operand {
            Operand::Register(number) => {
                let reg = self.register(*number, ty, fit)?;
                self.reads.push(reg.id);
                Ok(reg)
            }
            _ => {
                let constant = immediate(operand, ty)?;
                self.constant(constant)
            }
        }
    }

    /// One of several values that are read.
    pub fn src_part(&mut self, parts: &[Operand<'_>], at: usize, ty: Type, fit: Fit) -> Decoded<Reg> {
        match &parts[at] {
            Operand::Register(number) => self.src_operand(&Operand::Register(*number), ty, fit),
            operand => {
                let constant = immediate(operand, ty)?;
                self.constant(constant)
            }
        }
    }

    /// One of several registers that are written.
    pub fn dst_part(&mut self, parts: &[Operand<'_>], at: usize, ty: Type, fit: Fit) -> Decoded<Reg> {
        match &parts[at] {
            Operand::Register(number) => self.dst_operand(&Operand::Register(*number), ty, fit),
            _ => Err(format!("value {} is no register", at + 1)),
        }
    }

    /// A register, never a constant.
    pub fn src_register(&mut self, at: usize, ty: Type) -> Decoded<Reg> {
        let operand = self.operand(at)?.clone();
        match operand {
            Operand::Register(_) => self.src_operand(&operand, ty, Fit::Same),
            _ => Err(format!("operand {} is no register", at + 1)),
        }
    }

    /// A predicate that is read, and whether it is negated.
    pub fn predicate(&mut self, at: usize) -> Decoded<(Reg, bool)> {
        let operand = self.operand(at)?.clone();
        self.predicate_operand(&operand)
    }

    /// A predicate that is read, and whether it is negated.
    pub fn predicate_operand(&mut self, operand: &Operand<'a>) -> Decoded<(Reg, bool)> {
        match operand {
            Operand::Not(number) => {
                Ok((self.src_operand(&Operand::Register(*number), Type::PRED, Fit::Same)?, true))
            }
            _ => Ok((self.src_operand(operand, Type::PRED, Fit::Same)?, false)),
        }
    }

    /// A row that holds a constant.
    pub fn constant(&mut self, constant: Constant) -> Decoded<Reg> {
        if let Some(reg) = self.build.constants.get(&constant) {
            return Ok(*reg);
        }
        let bits = match constant {
            Constant::Word(_) | Constant::Special(_) => 32,
            Constant::Long(_) => 64,
            Constant::Predicate(_) => 1,
        };
        let row = self.build.row(bits, self.statement.line).map_err(|e| e.what)?;
        let reg = Reg { row, id: 0 };
        self.build.constants.insert(constant, reg);
        Ok(reg)
    }

    /// The row of a special register that keeps its value.
    pub fn special(&mut self, name: &str) -> Decoded<Reg> {
        let special =
            Special::named(name).ok_or_else(|| format!("special register `{name}` is not known"))?;
        self.constant(Constant::Special(special))
    }

    /// The address of a shared variable.
    pub fn shared_address(&self, number: usize, offset: i64) -> u32 {
        // addresses wrap at 32 bits
        self.build.shared[number].wrapping_add(offset as u32)
    }

    /// The offset of a parameter.
    pub fn param_offset(&self, number: usize, offset: i64) -> Decoded<usize> {
        let at = i64::try_from(self.build.params[number].offset).map_err(|e| e.to_string())? + offset;
        usize::try_from(at).map_err(|_| format!("parameter address {at}"))
    }

    /// Refuses bytes that do not lie within one parameter, or not at a multiple of their number.
    pub fn param_range(&self, at: i64, bytes: usize) -> Decoded<()> {
        let inside = |param: &super::PlacedParam| {
            let offset = usize::try_from(at).unwrap_or(usize::MAX);
            offset >= param.offset && offset.saturating_add(bytes) <= param.offset + param.param.bytes
        };
        if !self.build.params.iter().any(inside) {
            return Err(format!("{bytes} bytes that lie within no parameter"));
        }
        match usize::try_from(at) {
            Ok(at) if at.is_multiple_of(bytes) => Ok(()),
            _ => Err(format!("{bytes} bytes of parameters at {at}, expected a multiple of {bytes}")),
        }
    }

    /// A whole number that has to be known when the source is read.
    pub fn number(&self, at: usize) -> Decoded<u64> {
        match self.operand(at)? {
            Operand::Integer(value) => {
                u64::try_from(*value).map_err(|_| format!("operand {} is {value}", at + 1))
            }
            _ => Err(format!("operand {} is no constant", at + 1)),
        }
    }

    /// An address: its base, and what is added to it.
    pub fn address(&mut self, at: usize) -> Decoded<(Base, i64)> {
        match self.operand(at)?.clone() {
            Operand::Memory { base, offset, coordinates } if coordinates.is_empty() => {
                Ok((self.base(&base)?, offset))
            }
            _ => Err(format!("operand {} is no address", at + 1)),
        }
    }

    /// What an address starts from.
    pub fn base(&mut self, operand: &Operand<'a>) -> Decoded<Base> {
        match operand {
            Operand::Register(number) => {
                let ty = self.entry.registers[*number].ty;
                if !(ty.is_integer() || ty.meaning == Meaning::Bits) || ty.bits < 32 {
                    return Err(format!("an address in a register of {ty}"));
                }
                let reg = self.src_operand(operand, ty, Fit::Same)?;
                Ok(if ty.bits == 64 { Base::Long(reg) } else { Base::Word(reg) })
            }
            Operand::Shared(number, offset) => Ok(Base::Shared(self.shared_address(*number, *offset))),
            Operand::Param(number, offset) => Ok(Base::Param(self.param_offset(*number, *offset)?)),
            _ => Err("an address that is neither a register nor a variable".into()),
        }
    }

    /// The instruction that a label stands before.
    pub fn label(&self, at: usize) -> Decoded<usize> {
        let Operand::Label(name) = self.operand(at)? else {
            return Err(format!("operand {} is no label", at + 1));
        };
        let mut scope = self.statement.scope;
        loop {
            if let Some((_, _, target)) = self.entry.labels.iter().find(|(s, n, _)| *s == scope && n == name)
            {
                return Ok(*target);
            }
            if self.entry.scopes[scope] == scope {
                return Err(format!("no label `{name}`"));
            }
            scope = self.entry.scopes[scope];
        }
    }
}

/// A constant of an instruction's type, as `ptxas` takes it.
fn immediate(operand: &Operand<'_>, ty: Type) -> Decoded<Constant> {
    let is_float = ty.meaning == Meaning::Float && ty.bits >= 32;
    let wrong = || Err(format!("a constant that does not go with {ty}"));
    let value = match operand {
        // numbers wrap at the width of the type
        Operand::Integer(value) if ty.is_integer() || ty.meaning == Meaning::Bits => *value as u64,
        Operand::Integer(value) if ty == Type::PRED => return Ok(Constant::Predicate(*value != 0)),
        Operand::Single(bits) if ty == Type::B32 => u64::from(*bits),
        Operand::Single(bits) if is_float && ty.bits == 32 => u64::from(*bits),
        Operand::Single(bits) if is_float => f64::from(f32::from_bits(*bits)).to_bits(),
        Operand::Double(value) if is_float && ty.bits == 32 => u64::from((*value as f32).to_bits()),
        Operand::Double(value) if is_float => value.to_bits(),
        Operand::Label(name) => return Err(format!("`{name}` is not declared")),
        Operand::Special(name) => return Err(format!("special register `{name}` is not taken here")),
        _ => return wrong(),
    };
    Ok(match ty.bits {
        64 => Constant::Long(value),
        32 => Constant::Word(value as u32),
        16 => Constant::Word(u32::from(value as u16)),
        8 => Constant::Word(u32::from(value as u8)),
        _ => return wrong(),
    })
}
