//! Sources made ready to run.

mod cursor;
mod flow;
mod special;

pub use cursor::{Base, Cursor, Decoded};
pub use special::Special;

use super::exec::{ActFn, LaneFn, Reg, decode};
use super::parse::{self, Param, SourceError};
use std::collections::{HashMap, HashSet};

/// Does not reconverge before the end.
pub const NEVER: usize = usize::MAX;

/// What an instruction does.
pub enum Op {
    /// The same in every lane, which cannot fail.
    Lanes(LaneFn),
    /// Anything else that goes on to the next instruction.
    Act(ActFn),
    /// Jumps to an instruction.
    Branch {
        /// Where to.
        target: usize,
        /// Whether it promises that all lanes go the same way.
        uniform: bool,
    },
    /// Ends the lanes.
    Exit,
}

/// A decoded instruction.
pub struct Instruction {
    /// Row and id of a predicate, and what it has to be.
    pub guard: Option<(Reg, bool)>,
    /// What it does.
    pub op: Op,
    /// Ids of the registers it reads.
    pub reads: Box<[u16]>,
    /// Ids of the registers it writes.
    pub writes: Box<[u16]>,
    /// Ids of the registers among them that some `wgmma` has as accumulators or as A, and this is none.
    pub touches: Vec<u16>,
    /// For branches: where lanes that part meet again.
    pub reconverge: usize,
    /// Line of the source.
    pub line: usize,
    /// The statement.
    pub text: Box<str>,
}

/// What a row is filled with before a warp starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Constant {
    /// 32 bits.
    Word(u32),
    /// 64 bits.
    Long(u64),
    /// One bit.
    Predicate(bool),
    /// A special register.
    Special(Special),
}

/// How many rows a warp needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Files {
    /// Of up to 32 bits.
    pub words: usize,
    /// Of 64 bits.
    pub longs: usize,
    /// Predicates.
    pub predicates: usize,
    /// Masks of defined lanes, of which the first is for constants.
    pub registers: usize,
}

/// A parameter and where it lies.
#[derive(Clone, Debug)]
pub struct PlacedParam {
    /// As declared.
    pub param: Param,
    /// Offset in the parameter space.
    pub offset: usize,
}

/// An entry, ready to run.
pub struct Program {
    /// Its name.
    pub entry: String,
    /// `.target`.
    pub target: String,
    /// Parameters in order.
    pub params: Vec<PlacedParam>,
    /// Bytes of all parameters.
    pub param_bytes: usize,
    /// `.reqntid`.
    pub block: Option<[u32; 3]>,
    /// `.maxnreg`.
    pub max_registers: Option<u32>,
    /// Whether it has a `wgmma`.
    pub has_wgmma: bool,
    /// Shared variables of known length: name, address, bytes.
    pub shared: Vec<(String, u32, u32)>,
    /// Bytes of shared memory that the source declares, as a compiler packs it.
    pub static_shared: usize,
    /// Where dynamic shared memory begins; all that is declared lies before it.
    pub dynamic_shared_at: usize,
    /// Instructions; the last ends every lane.
    pub code: Vec<Instruction>,
    /// Rows to fill, by file.
    pub constants: Vec<(u16, Constant)>,
    /// Rows of a warp.
    pub files: Files,
    /// Names of the registers by id; the first stands for all constants.
    pub names: Vec<String>,
}

/// Registers and constants while a program is made.
#[derive(Default)]
pub struct Build {
    registers: Vec<Reg>,
    constants: HashMap<Constant, Reg>,
    files: Files,
    /// Addresses of shared variables.
    shared: Vec<u32>,
    params: Vec<PlacedParam>,
    target: String,
    version: (u32, u32),
    /// Ids of the registers that a `wgmma` has as accumulators or as A.
    tensor_registers: HashSet<u16>,
}

impl Program {
    /// Reads an entry of a source.
    pub fn new(text: &str, entry: &str) -> Result<Self, SourceError> {
        let source = parse::parse(text)?;
        let Some(found) = source.entries.iter().find(|e| e.name == entry) else {
            return Err(SourceError::new(1, format!("no entry `{entry}`")));
        };
        if !matches!(source.target, "sm_80" | "sm_86" | "sm_89" | "sm_90" | "sm_90a") {
            return Err(SourceError::new(1, format!("target `{}` is not known", source.target)));
        }
        let mut build =
            Build { target: source.target.to_string(), version: source.version, ..Build::default() };
        build.files.registers = 1;
        let mut names = vec!["constant".to_string()];
        for register in &found.registers {
            let row = build.row(register.ty.bits, found.line)?;
            let id = u16::try_from(build.files.registers)
                .map_err(|_| SourceError::new(found.line, "too many registers"))?;
            build.files.registers += 1;
            build.registers.push(Reg { row, id });
            names.push(match register.number {
                Some(number) => format!("{}{number}", register.name),
                None => register.name.to_string(),
            });
        }
        let mut param_bytes = 0_usize;
        for param in &found.params {
            let offset = param_bytes.next_multiple_of(param.align);
            param_bytes = offset + param.bytes;
            build.params.push(PlacedParam { param: param.clone(), offset });
        }
        let (static_shared, dynamic_shared_at) = build.place_shared(&found.shared, found.line)?;
        let mut code = Vec::with_capacity(found.statements.len() + 1);
        for statement in &found.statements {
            code.push(cursor::instruction(found, statement, &mut build, decode)?);
        }
        code.push(Instruction {
            guard: None,
            op: Op::Exit,
            reads: Box::default(),
            writes: Box::default(),
            touches: Vec::new(),
            reconverge: NEVER,
            line: found.last_line,
            text: "}".into(),
        });
        for instruction in &mut code {
            instruction.touches.retain(|id| build.tensor_registers.contains(id));
        }
        flow::reconverge(&mut code);
        let shared = found.shared.iter().zip(&build.shared).filter_map(|(var, address)| {
            Some((var.name.to_string(), *address, u32::try_from(var.bytes?).ok()?))
        });
        let shared = shared.collect();
        let constants = build.constants.iter().map(|(constant, reg)| (reg.row, *constant)).collect();
        Ok(Self {
            entry: entry.to_string(),
            target: build.target,
            params: build.params,
            param_bytes,
            block: found.block,
            max_registers: found.max_registers,
            has_wgmma: !build.tensor_registers.is_empty(),
            shared,
            static_shared,
            dynamic_shared_at,
            code,
            constants,
            files: build.files,
            names,
        })
    }
}

impl Build {
    /// A new row of a file.
    fn row(&mut self, bits: u32, line: usize) -> Result<u16, SourceError> {
        let file = match bits {
            1 => &mut self.files.predicates,
            64 => &mut self.files.longs,
            _ => &mut self.files.words,
        };
        let row = u16::try_from(*file).map_err(|_| SourceError::new(line, "too many registers"))?;
        *file += 1;
        Ok(row)
    }

    /// Addresses for shared variables, each no better aligned than it asks for, so that a source cannot lean on luck.
    /// Returns the bytes that a compiler would need for those of known length, and where the rest begins.
    fn place_shared(
        &mut self,
        vars: &[parse::SharedVar<'_>],
        line: usize,
    ) -> Result<(usize, usize), SourceError> {
        let unlucky = |at: usize, align: usize| {
            let at = at.next_multiple_of(align);
            if at.is_multiple_of(2 * align) { at + align } else { at }
        };
        let (mut packed, mut at) = (0_usize, 0_usize);
        let mut addresses = vec![0_usize; vars.len()];
        for (address, var) in addresses.iter_mut().zip(vars) {
            let Some(bytes) = var.bytes else { continue };
            packed = packed.next_multiple_of(var.align) + bytes;
            *address = unlucky(at, var.align);
            at = *address + bytes;
        }
        // all variables of unknown length are the same memory
        let dynamic = vars.iter().filter(|v| v.bytes.is_none()).map(|v| v.align).max();
        let dynamic_at = dynamic.map_or(at, |align| unlucky(at, align));
        for (address, var) in addresses.iter_mut().zip(vars) {
            if var.bytes.is_none() {
                *address = dynamic_at;
            }
        }
        let fits = |address: usize| u32::try_from(address).ok();
        self.shared = addresses
            .into_iter()
            .map(fits)
            .collect::<Option<_>>()
            .ok_or_else(|| SourceError::new(line, "more shared memory than there are addresses"))?;
        Ok((packed, dynamic_at))
    }
}
