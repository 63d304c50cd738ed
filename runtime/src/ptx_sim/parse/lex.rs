//! Text to tokens.

use super::SourceError;

/// A piece of source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token<'a> {
    /// A name, a directive or an instruction with its modifiers.
    Word(&'a str),
    /// Starts with a digit.
    Number(&'a str),
    /// Between quotes.
    Text(&'a str),
    /// Punctuation.
    Mark(char),
}

/// A token and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Placed<'a> {
    /// The token.
    pub token: Token<'a>,
    /// Line, from 1.
    pub line: usize,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// All tokens of a source, comments left out.
pub fn lex(source: &str) -> Result<Vec<Placed<'_>>, SourceError> {
    let bytes = source.as_bytes();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let start = at;
        let byte = bytes[at];
        let token = match byte {
            b'\n' => {
                line += 1;
                at += 1;
                continue;
            }
            _ if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                while at < bytes.len() && bytes[at] != b'\n' {
                    at += 1;
                }
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                let Some(length) = source[at + 2..].find("*/") else {
                    return Err(SourceError::new(line, "a comment that never ends"));
                };
                line += source[at..at + 2 + length].matches('\n').count();
                at += length + 4;
                continue;
            }
            b'"' => {
                let Some(length) = source[at + 1..].find('"') else {
                    return Err(SourceError::new(line, "a string that never ends"));
                };
                at += length + 2;
                Token::Text(&source[start + 1..at - 1])
            }
            b'0'..=b'9' => {
                at = number_end(bytes, at);
                Token::Number(&source[start..at])
            }
            _ if is_word(byte) || byte == b'.' => {
                at = word_end(bytes, at);
                Token::Word(&source[start..at])
            }
            _ if byte.is_ascii_punctuation() => {
                at += 1;
                Token::Mark(char::from(byte))
            }
            _ => return Err(SourceError::new(line, format!("byte 0x{byte:02x} is no part of PTX"))),
        };
        tokens.push(Placed { token, line, start, end: at });
    }
    Ok(tokens)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'%')
}

fn word_end(bytes: &[u8], mut at: usize) -> usize {
    loop {
        match bytes.get(at) {
            Some(&byte) if is_word(byte) || byte == b'.' => at += 1,
            // `.shared::cta`; a single colon ends a label
            Some(b':') if bytes.get(at + 1) == Some(&b':') => at += 2,
            _ => return at,
        }
    }
}

fn number_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    let radix = bytes.get(start + 1).filter(|_| bytes[start] == b'0').map(u8::to_ascii_lowercase);
    let decimal = !matches!(radix, Some(b'x' | b'b' | b'f' | b'd'));
    while let Some(&byte) = bytes.get(at) {
        let exponent = decimal && at > start && matches!(bytes[at - 1], b'e' | b'E');
        if byte.is_ascii_alphanumeric() || byte == b'.' || (exponent && matches!(byte, b'+' | b'-')) {
            at += 1;
        } else {
            break;
        }
    }
    at
}
