//! The body of an entry: declarations, labels, statements.

use super::lex::Token;
use super::source::{Entry, Operand, Register, SourceError, Statement};
use super::{Meaning, Parser, Type, integer};
use std::collections::HashMap;

/// What a name stands for.
#[derive(Clone, Copy)]
enum Named {
    Register(usize),
    Shared(usize),
}

/// What a scope declares.
#[derive(Default)]
struct Scope<'a> {
    names: HashMap<&'a str, Named>,
    /// `name<N>`: the first register, and N. `name` itself may be something else.
    ranges: HashMap<&'a str, (usize, usize)>,
}

struct Body<'p, 'a> {
    parser: &'p mut Parser<'a>,
    entry: Entry<'a>,
    names: Vec<Scope<'a>>,
    /// Scopes that are open; each is a number in `entry.scopes`.
    open: Vec<usize>,
}

impl<'a> Parser<'a> {
    /// Reads up to the brace that closes the entry.
    pub(super) fn body(&mut self, entry: Entry<'a>) -> Result<Entry<'a>, SourceError> {
        let names = entry.shared.iter().enumerate().map(|(i, v)| (v.name, Named::Shared(i))).collect();
        let outermost = Scope { names, ..Scope::default() };
        let mut body = Body { parser: self, entry, names: vec![outermost], open: vec![0] };
        while !body.open.is_empty() {
            body.item()?;
        }
        Ok(body.entry)
    }
}

impl<'a> Body<'_, 'a> {
    fn item(&mut self) -> Result<(), SourceError> {
        match self.parser.peek() {
            None => self.parser.error("the source ends within an entry"),
            Some(Token::Mark('{')) => {
                self.parser.at += 1;
                self.entry.scopes.push(*self.open.last().expect("the body is open"));
                self.open.push(self.entry.scopes.len() - 1);
                self.names.push(Scope::default());
                Ok(())
            }
            Some(Token::Mark('}')) => {
                self.entry.last_line = self.parser.line();
                self.parser.at += 1;
                self.open.pop();
                self.names.pop();
                Ok(())
            }
            Some(Token::Mark(';')) => {
                self.parser.at += 1;
                Ok(())
            }
            Some(Token::Word(".reg")) => {
                self.parser.at += 1;
                self.registers()
            }
            Some(Token::Word(".shared")) => {
                self.parser.at += 1;
                let var = self.parser.shared(false)?;
                self.entry.shared.push(var);
                self.declare(var.name, Named::Shared(self.entry.shared.len() - 1))
            }
            Some(Token::Word(".pragma")) => {
                self.parser.at += 1;
                if !matches!(self.parser.next(), Some(Token::Text(_))) {
                    self.parser.at -= 1;
                    return self.parser.error("`.pragma` without a string");
                }
                self.parser.expect(';')
            }
            Some(Token::Word(word)) if word.starts_with('.') => {
                self.parser.error(format!("`{word}` is not known here"))
            }
            _ => self.statement(),
        }
    }

    fn declare(&mut self, name: &'a str, what: Named) -> Result<(), SourceError> {
        let scope = self.names.last_mut().expect("the body is open");
        if scope.names.insert(name, what).is_some() {
            return self.parser.error(format!("a second `{name}`"));
        }
        Ok(())
    }

    fn registers(&mut self) -> Result<(), SourceError> {
        let ty = self.parser.ty()?;
        if matches!(ty.meaning, Meaning::Brain | Meaning::BrainPair | Meaning::Tensor) {
            return self.parser.error(format!("{ty} is no type of registers"));
        }
        loop {
            let name = self.parser.name("a register")?;
            let first = self.entry.registers.len();
            if self.parser.take('<') {
                let count = self.parser.size("a count")?;
                self.parser.expect('>')?;
                if first + count > usize::from(u16::MAX) {
                    return self.parser.error("more than 65,535 registers");
                }
                let scope = self.names.last_mut().expect("the body is open");
                if scope.ranges.insert(name, (first, count)).is_some() {
                    return self.parser.error(format!("a second `{name}<>`"));
                }
                let numbered = (0..count).map(|number| Register { name, number: Some(number), ty });
                self.entry.registers.extend(numbered);
            } else {
                if self.entry.params.iter().any(|p| p.name == name) {
                    return self.parser.error(format!("register `{name}` has the name of a parameter"));
                }
                self.declare(name, Named::Register(first))?;
                self.entry.registers.push(Register { name, number: None, ty });
            }
            if self.parser.take(';') {
                return Ok(());
            }
            self.parser.expect(',')?;
        }
    }

    fn lookup(&self, name: &str) -> Option<Operand<'a>> {
        for scope in self.names.iter().rev() {
            match scope.names.get(name) {
                Some(Named::Register(number)) => return Some(Operand::Register(*number)),
                Some(Named::Shared(number)) => return Some(Operand::Shared(*number, 0)),
                None => {}
            }
            let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit()).len();
            // `%rd12` is register 12 of `%rd<N>`; the name itself may hold digits
            for cut in (name.len() - digits..name.len()).filter(|&cut| name.is_char_boundary(cut)) {
                if let Some((first, count)) = scope.ranges.get(&name[..cut])
                    && (name[cut..] == *"0" || !name[cut..].starts_with('0'))
                    && let Ok(number) = name[cut..].parse::<usize>()
                    && number < *count
                {
                    return Some(Operand::Register(first + number));
                }
            }
        }
        let param = self.entry.params.iter().position(|p| p.name == name)?;
        Some(Operand::Param(param, 0))
    }

    fn predicate(&mut self) -> Result<usize, SourceError> {
        let name = self.parser.word("a predicate")?;
        match self.lookup(name) {
            Some(Operand::Register(number)) if self.entry.registers[number].ty == Type::PRED => Ok(number),
            _ => {
                self.parser.at -= 1;
                self.parser.error(format!("`{name}` is no predicate"))
            }
        }
    }

    fn statement(&mut self) -> Result<(), SourceError> {
        let scope = *self.open.last().expect("the body is open");
        let first = self.parser.tokens[self.parser.at];
        if let Token::Word(name) = first.token
            && self.parser.tokens.get(self.parser.at + 1).map(|t| t.token) == Some(Token::Mark(':'))
        {
            if self.entry.labels.iter().any(|(s, n, _)| (*s, *n) == (scope, name)) {
                return self.parser.error(format!("a second label `{name}`"));
            }
            self.entry.labels.push((scope, name, self.entry.statements.len()));
            self.parser.at += 2;
            return Ok(());
        }
        let guard = if self.parser.take('@') {
            let negated = self.parser.take('!');
            Some((self.predicate()?, negated))
        } else {
            None
        };
        let opcode = self.parser.word("an instruction")?;
        let mut operands = Vec::new();
        if !self.parser.take(';') {
            loop {
                operands.push(self.operand()?);
                if self.parser.take(';') {
                    break;
                }
                self.parser.expect(',')?;
            }
        }
        let end = self.parser.tokens[self.parser.at - 1].end;
        let text = self.parser.text[first.start..end].trim_end_matches(';').trim_end();
        self.entry.statements.push(Statement { line: first.line, text, guard, opcode, operands, scope });
        Ok(())
    }

    fn operand(&mut self) -> Result<Operand<'a>, SourceError> {
        let first = self.simple()?;
        if !self.parser.take('|') {
            return Ok(first);
        }
        let second = self.simple()?;
        Ok(Operand::Pair(Box::new(first), Box::new(second)))
    }

    fn list(&mut self) -> Result<Vec<Operand<'a>>, SourceError> {
        let mut items = Vec::new();
        loop {
            items.push(self.simple()?);
            if self.parser.take('}') {
                return Ok(items);
            }
            self.parser.expect(',')?;
        }
    }

    fn offset(&mut self) -> Result<i64, SourceError> {
        let negative = self.parser.take('-');
        let value = self.parser.unsigned("a whole number")?;
        match i64::try_from(value) {
            Ok(value) => Ok(if negative { -value } else { value }),
            Err(_) => self.parser.error(format!("an offset of {value}")),
        }
    }

    fn simple(&mut self) -> Result<Operand<'a>, SourceError> {
        match self.parser.peek() {
            Some(Token::Mark('{')) => {
                self.parser.at += 1;
                Ok(Operand::Vector(self.list()?))
            }
            Some(Token::Mark('[')) => {
                self.parser.at += 1;
                self.memory()
            }
            Some(Token::Mark('!')) => {
                self.parser.at += 1;
                Ok(Operand::Not(self.predicate()?))
            }
            Some(Token::Mark('-')) => {
                self.parser.at += 1;
                Ok(match self.number()? {
                    Operand::Integer(value) => Operand::Integer(-value),
                    Operand::Double(value) => Operand::Double(-value),
                    _ => return self.parser.error("a sign before bits"),
                })
            }
            Some(Token::Number(_)) => self.number(),
            Some(Token::Word("_")) => {
                self.parser.at += 1;
                Ok(Operand::Sink)
            }
            Some(Token::Word("WARP_SZ")) => {
                self.parser.at += 1;
                Ok(Operand::Integer(32))
            }
            Some(Token::Word(name)) => {
                self.parser.at += 1;
                let found = self.lookup(name);
                Ok(match found {
                    Some(Operand::Shared(number, _)) if self.parser.take('+') => {
                        Operand::Shared(number, self.offset()?)
                    }
                    Some(Operand::Param(number, _)) if self.parser.take('+') => {
                        Operand::Param(number, self.offset()?)
                    }
                    Some(operand) => operand,
                    None if name.starts_with('%') => Operand::Special(name),
                    None => Operand::Label(name),
                })
            }
            _ => self.parser.error(format!("{}, expected an operand", self.parser.found())),
        }
    }

    fn memory(&mut self) -> Result<Operand<'a>, SourceError> {
        let base = Box::new(match self.simple()? {
            // an offset behind a symbol is taken below
            base @ (Operand::Register(_) | Operand::Shared(..) | Operand::Param(..)) => base,
            Operand::Label(name) => return self.parser.error(format!("`{name}` is not declared")),
            _ => return self.parser.error("an address that is neither a register nor a variable"),
        });
        let offset = if self.parser.take('+') { self.offset()? } else { 0 };
        let mut coordinates = Vec::new();
        if self.parser.take(',') {
            self.parser.expect('{')?;
            coordinates = self.list()?;
        }
        self.parser.expect(']')?;
        Ok(Operand::Memory { base, offset, coordinates })
    }

    fn number(&mut self) -> Result<Operand<'a>, SourceError> {
        let Some(Token::Number(text)) = self.parser.peek() else {
            return self.parser.error(format!("{}, expected a number", self.parser.found()));
        };
        let bits = |prefix: [&str; 2], digits: usize| {
            let hex = text.strip_prefix(prefix[0]).or_else(|| text.strip_prefix(prefix[1]))?;
            if hex.len() == digits { u64::from_str_radix(hex, 16).ok() } else { None }
        };
        let operand = if let Some(value) = integer(text) {
            Operand::Integer(i128::from(value))
        } else if let Some(value) = bits(["0f", "0F"], 8) {
            Operand::Single(u32::try_from(value).expect("8 digits"))
        } else if let Some(value) = bits(["0d", "0D"], 16) {
            Operand::Double(f64::from_bits(value))
        } else if let (true, Ok(value)) = (text.contains(['.', 'e', 'E']), text.parse()) {
            Operand::Double(value)
        } else {
            return self.parser.error(format!("`{text}` is no number"));
        };
        self.parser.at += 1;
        Ok(operand)
    }
}
