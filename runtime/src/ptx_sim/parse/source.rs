//! A source as it is written: entries, declarations, statements. Names are resolved, instructions are not yet known.

use super::types::Type;

/// A source that is no program, or none that the interpreter knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct SourceError {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

impl SourceError {
    /// Something wrong on a line.
    pub fn new(line: usize, what: impl Into<String>) -> Self {
        Self { line, what: what.into() }
    }
}

/// A whole file.
#[derive(Debug)]
pub struct Source<'a> {
    /// `.version`, as (major, minor).
    pub version: (u32, u32),
    /// `.target`: `sm_80`, `sm_90a`.
    pub target: &'a str,
    /// Entry points, in the order of the file.
    pub entries: Vec<Entry<'a>>,
}

/// One entry point.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a str,
    /// Line of the name.
    pub line: usize,
    /// Its parameters.
    pub params: Vec<Param>,
    /// `.reqntid`.
    pub block: Option<[u32; 3]>,
    /// `.maxnreg`.
    pub max_registers: Option<u32>,
    /// Every register that is declared, in all scopes.
    pub registers: Vec<Register<'a>>,
    /// Every shared variable that it can see.
    pub shared: Vec<SharedVar<'a>>,
    /// Instructions in order.
    pub statements: Vec<Statement<'a>>,
    /// Labels: scope, name, number of the statement that follows.
    pub labels: Vec<(usize, &'a str, usize)>,
    /// The scope around each scope; the first is around itself.
    pub scopes: Vec<usize>,
    /// Line of the brace that ends it.
    pub last_line: usize,
}

/// A parameter of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: usize,
    /// Its alignment.
    pub align: usize,
}

/// A declared register.
#[derive(Clone, Copy, Debug)]
pub struct Register<'a> {
    /// Name; for `name<N>` what stands before the number.
    pub name: &'a str,
    /// Which one of `name<N>`.
    pub number: Option<usize>,
    /// Type.
    pub ty: Type,
}

/// A variable in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedVar<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its alignment.
    pub align: usize,
    /// Its length; `None` for one as long as the launch says.
    pub bytes: Option<usize>,
}

/// An instruction as written.
#[derive(Debug)]
pub struct Statement<'a> {
    /// Line of its first word.
    pub line: usize,
    /// All of it.
    pub text: &'a str,
    /// Its guard: the predicate, and whether it is negated.
    pub guard: Option<(usize, bool)>,
    /// Instruction with modifiers.
    pub opcode: &'a str,
    /// Operands in order.
    pub operands: Vec<Operand<'a>>,
    /// Scope that it stands in.
    pub scope: usize,
}

/// An operand as written.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand<'a> {
    /// A register, by its number in [`Entry::registers`].
    Register(usize),
    /// A negated predicate.
    Not(usize),
    /// A whole number, in two's complement.
    Integer(i128),
    /// `0f`: bits of a binary32.
    Single(u32),
    /// `0d` or a decimal: a binary64.
    Double(f64),
    /// A special register.
    Special(&'a str),
    /// The address of a shared variable, by number, and bytes behind it.
    Shared(usize, i64),
    /// The address of a parameter, by number.
    Param(usize, i64),
    /// A place to jump to.
    Label(&'a str),
    /// `_`.
    Sink,
    /// `p|q`.
    Pair(Box<Operand<'a>>, Box<Operand<'a>>),
    /// `{a, b}`.
    Vector(Vec<Operand<'a>>),
    /// `[base + offset]`, with the coordinates of a tensor copy.
    Memory { base: Box<Operand<'a>>, offset: i64, coordinates: Vec<Operand<'a>> },
}
