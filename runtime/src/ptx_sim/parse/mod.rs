//! PTX text to [`Source`].

mod body;
mod lex;
mod source;
mod types;

pub use source::{Entry, Operand, Param, SharedVar, Source, SourceError, Statement};
pub use types::{Fit, Meaning, Type};

use lex::{Placed, Token};

/// Reads a source.
pub fn parse(text: &str) -> Result<Source<'_>, SourceError> {
    let tokens = lex::lex(text)?;
    Parser { text, tokens, at: 0, shared: Vec::new() }.source()
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Placed<'a>>,
    at: usize,
    /// Variables of the module.
    shared: Vec<SharedVar<'a>>,
}

impl<'a> Parser<'a> {
    fn line(&self) -> usize {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |t| t.line)
    }

    fn error<T>(&self, what: impl Into<String>) -> Result<T, SourceError> {
        Err(SourceError::new(self.line(), what))
    }

    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).map(|t| t.token)
    }

    fn next(&mut self) -> Option<Token<'a>> {
        let token = self.peek();
        self.at += 1;
        token
    }

    /// Takes a mark if it is the next token.
    fn take(&mut self, mark: char) -> bool {
        let is = self.peek() == Some(Token::Mark(mark));
        self.at += usize::from(is);
        is
    }

    fn expect(&mut self, mark: char) -> Result<(), SourceError> {
        if self.take(mark) { Ok(()) } else { self.error(format!("{}, expected `{mark}`", self.found())) }
    }

    fn found(&self) -> String {
        match self.peek() {
            None => "the end of the source".into(),
            Some(Token::Word(text) | Token::Number(text) | Token::Text(text)) => format!("`{text}`"),
            Some(Token::Mark(mark)) => format!("`{mark}`"),
        }
    }

    fn word(&mut self, what: &str) -> Result<&'a str, SourceError> {
        match self.peek() {
            Some(Token::Word(word)) => {
                self.at += 1;
                Ok(word)
            }
            _ => self.error(format!("{}, expected {what}", self.found())),
        }
    }

    fn is_word(&mut self, word: &str) -> bool {
        let is = self.peek() == Some(Token::Word(word));
        self.at += usize::from(is);
        is
    }

    /// A name that may be declared.
    fn name(&mut self, what: &str) -> Result<&'a str, SourceError> {
        let name = self.word(what)?;
        if name.contains('.') || name.contains(':') || name == "_" {
            self.at -= 1;
            return self.error(format!("`{name}` is no name, expected {what}"));
        }
        Ok(name)
    }

    fn unsigned(&mut self, what: &str) -> Result<u64, SourceError> {
        if let Some(Token::Number(text)) = self.peek()
            && let Some(value) = integer(text)
        {
            self.at += 1;
            return Ok(value);
        }
        self.error(format!("{}, expected {what}", self.found()))
    }

    fn size(&mut self, what: &str) -> Result<usize, SourceError> {
        let value = self.unsigned(what)?;
        usize::try_from(value)
            .ok()
            .filter(|&v| v <= 1 << 30)
            .map_or_else(|| self.error(format!("{what} of {value}")), Ok)
    }

    fn align(&mut self) -> Result<usize, SourceError> {
        let align = self.size("an alignment")?;
        if align.is_power_of_two() { Ok(align) } else { self.error(format!("an alignment of {align}")) }
    }

    /// `.f32` and the like.
    fn ty(&mut self) -> Result<Type, SourceError> {
        let word = self.word("a type")?;
        let ty = word.strip_prefix('.').and_then(Type::named);
        ty.map_or_else(|| self.error(format!("`{word}`, expected a type")), Ok)
    }

    fn source(mut self) -> Result<Source<'a>, SourceError> {
        let (mut version, mut target, mut entries) = (None, None, Vec::<Entry<'a>>::new());
        let mut address_size = None;
        while let Some(token) = self.peek() {
            match token {
                Token::Word(".version") => {
                    self.at += 1;
                    version = Some(self.version()?);
                }
                Token::Word(".target") => {
                    self.at += 1;
                    target = Some(self.word("a target")?);
                }
                Token::Word(".address_size") => {
                    self.at += 1;
                    address_size = Some(self.unsigned("64")?);
                }
                Token::Word(".shared" | ".extern") => {
                    self.at += 1;
                    let var = self.shared(token == Token::Word(".extern"))?;
                    self.declare_shared(var)?;
                }
                Token::Word(".visible") => {
                    self.at += 1;
                    if !self.is_word(".entry") {
                        return self.error(format!("{}, expected `.entry`", self.found()));
                    }
                    let entry = self.entry()?;
                    if entries.iter().any(|e| e.name == entry.name) {
                        return self.error(format!("a second entry `{}`", entry.name));
                    }
                    entries.push(entry);
                }
                _ => return self.error(format!("{} is not known here", self.found())),
            }
        }
        let missing = |what: &str| SourceError::new(1, format!("no `{what}`"));
        if address_size != Some(64) {
            return Err(missing(".address_size 64"));
        }
        Ok(Source {
            version: version.ok_or_else(|| missing(".version"))?,
            target: target.ok_or_else(|| missing(".target"))?,
            entries,
        })
    }

    fn version(&mut self) -> Result<(u32, u32), SourceError> {
        if let Some(Token::Number(text)) = self.next()
            && let Some((major, minor)) = text.split_once('.')
            && let (Ok(major), Ok(minor)) = (major.parse(), minor.parse())
        {
            return Ok((major, minor));
        }
        self.at -= 1;
        self.error(format!("{}, expected a version", self.found()))
    }

    fn declare_shared(&mut self, var: SharedVar<'a>) -> Result<(), SourceError> {
        if self.shared.iter().any(|v| v.name == var.name) {
            return self.error(format!("a second `{}`", var.name));
        }
        self.shared.push(var);
        Ok(())
    }

    /// What follows `.shared`, or `.extern` of a shared variable.
    fn shared(&mut self, is_extern: bool) -> Result<SharedVar<'a>, SourceError> {
        if is_extern && !self.is_word(".shared") {
            return self.error(format!("{}, expected `.shared`", self.found()));
        }
        let align = if self.is_word(".align") { Some(self.align()?) } else { None };
        let ty = self.ty()?;
        let name = self.name("a variable")?;
        let mut count = Some(1_usize);
        while self.take('[') {
            if self.take(']') {
                count = None;
                break;
            }
            let extent = self.size("a length")?;
            count = count.and_then(|c| c.checked_mul(extent));
            self.expect(']')?;
        }
        if is_extern != count.is_none() {
            return self.error(format!("`{name}`: `.extern` goes with `[]`, and a length with neither"));
        }
        self.expect(';')?;
        let bytes = count.map(|count| count * ty.bytes());
        Ok(SharedVar { name, align: align.unwrap_or(ty.bytes()), bytes })
    }

    fn entry(&mut self) -> Result<Entry<'a>, SourceError> {
        let line = self.line();
        let name = self.name("an entry")?;
        let mut params = Vec::new();
        if self.take('(') && !self.take(')') {
            loop {
                let param = self.param()?;
                if params.iter().any(|p: &Param| p.name == param.name) {
                    return self.error(format!("a second parameter `{}`", param.name));
                }
                params.push(param);
                if self.take(')') {
                    break;
                }
                self.expect(',')?;
            }
        }
        let (mut block, mut max_registers) = (None, None);
        while let Some(Token::Word(directive)) = self.peek() {
            self.at += 1;
            match directive {
                ".reqntid" => block = Some(self.extents()?),
                ".maxntid" => drop(self.extents()?),
                ".minnctapersm" => drop(self.unsigned("a number")?),
                ".maxnreg" => {
                    let value = self.unsigned("a number")?;
                    max_registers =
                        Some(u32::try_from(value).or_else(|_| self.error(format!("{value} registers")))?);
                }
                _ => {
                    self.at -= 1;
                    return self.error(format!("`{directive}` is not known here"));
                }
            }
        }
        self.expect('{')?;
        self.body(Entry {
            name,
            line,
            params,
            block,
            max_registers,
            registers: Vec::new(),
            shared: self.shared.clone(),
            statements: Vec::new(),
            labels: Vec::new(),
            scopes: vec![0],
            last_line: line,
        })
    }

    fn extents(&mut self) -> Result<[u32; 3], SourceError> {
        let mut extents = [1; 3];
        for extent in &mut extents {
            let value = self.unsigned("a number")?;
            *extent = match u32::try_from(value) {
                Ok(value) if value > 0 => value,
                _ => return self.error(format!("an extent of {value}")),
            };
            if !self.take(',') {
                break;
            }
        }
        Ok(extents)
    }

    fn param(&mut self) -> Result<Param, SourceError> {
        if !self.is_word(".param") {
            return self.error(format!("{}, expected `.param`", self.found()));
        }
        let mut align = if self.is_word(".align") { Some(self.align()?) } else { None };
        let ty = self.ty()?;
        // what a pointer points to
        if self.is_word(".ptr") {
            let _ = self.is_word(".global") || self.is_word(".shared");
            if self.is_word(".align") {
                self.align()?;
            }
        }
        align = if align.is_none() && self.is_word(".align") { Some(self.align()?) } else { align };
        let name = self.name("a parameter")?.to_string();
        let mut bytes = ty.bytes();
        if self.take('[') {
            bytes *= self.size("a length")?;
            self.expect(']')?;
        }
        Ok(Param { name, bytes, align: align.unwrap_or(ty.bytes()) })
    }
}

/// A whole number as PTX writes it.
fn integer(text: &str) -> Option<u64> {
    let text = text.strip_suffix('U').unwrap_or(text);
    let lower = text.to_ascii_lowercase();
    if let Some(digits) = lower.strip_prefix("0x") {
        u64::from_str_radix(digits, 16).ok()
    } else if let Some(digits) = lower.strip_prefix("0b") {
        u64::from_str_radix(digits, 2).ok()
    } else if lower.len() > 1 && lower.starts_with('0') {
        u64::from_str_radix(&lower[1..], 8).ok()
    } else {
        lower.parse().ok()
    }
}
