//! SentencePiece models (`spiece.model`): the fields of the protobuf that a unigram tokenizer needs.
//!
//! Fields and their numbers: `sentencepiece_model.proto`. Everything else in the file is skipped; nothing is trusted to
//! have the length that it claims.

/// What a piece is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A piece of text; also user-defined pieces, unused ones and bytes.
    Text,
    /// What stands for text that no piece covers.
    Unknown,
    /// A mark that no text holds: padding, the end.
    Control,
}

/// One entry of the vocabulary; its id is its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    pub text: String,
    /// Logarithm of its probability.
    pub score: f32,
    pub kind: Kind,
}

/// A unigram model.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Model {
    pub pieces: Vec<Piece>,
    /// The normaliser's compiled rules; empty for none.
    pub charsmap: Vec<u8>,
    /// Whether text that no piece covers is spelt in bytes.
    pub byte_fallback: bool,
}

/// `TrainerSpec.ModelType.UNIGRAM`, also the default.
const UNIGRAM: u64 = 1;

/// Reads a model.
pub(super) fn read(bytes: &[u8]) -> Result<Model, String> {
    let mut model = Model::default();
    let mut kind = UNIGRAM;
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(piece)) => model.pieces.push(read_piece(piece, model.pieces.len())?),
            (2, Value::Bytes(trainer)) => {
                for field in Fields(trainer) {
                    match field? {
                        (3, Value::Number(value)) => kind = value,
                        (35, Value::Number(value)) => model.byte_fallback = value != 0,
                        _ => {}
                    }
                }
            }
            (3, Value::Bytes(normalizer)) => {
                for field in Fields(normalizer) {
                    if let (2, Value::Bytes(charsmap)) = field? {
                        model.charsmap = charsmap.to_vec();
                    }
                }
            }
            _ => {}
        }
    }
    if kind != UNIGRAM {
        return Err(format!("is a model of type {kind}, expected {UNIGRAM} (unigram)"));
    }
    if model.pieces.is_empty() {
        return Err("has no pieces, expected a SentencePiece model".into());
    }
    Ok(model)
}

fn read_piece(bytes: &[u8], id: usize) -> Result<Piece, String> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: Kind::Text };
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(text)) => {
                let text = std::str::from_utf8(text).map_err(|_| format!("piece {id} is not UTF-8"))?;
                piece.text = text.to_string();
            }
            (2, Value::Fixed32(bits)) => piece.score = f32::from_bits(bits),
            (3, Value::Number(2)) => piece.kind = Kind::Unknown,
            (3, Value::Number(3)) => piece.kind = Kind::Control,
            _ => {}
        }
    }
    if !piece.score.is_finite() {
        return Err(format!("piece {id} has score {}, expected a finite number", piece.score));
    }
    Ok(piece)
}

/// A value as it is on the wire.
enum Value<'a> {
    Number(u64),
    Fixed32(u32),
    Fixed64,
    Bytes(&'a [u8]),
}

/// The fields of a message, by number; the first fault ends it.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// A variable-length number: seven bits a byte, the lowest first.
    fn number(&mut self) -> Result<u64, String> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or("ends within a number")?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("has a number of more than 64 bits".into())
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], String> {
        let split = usize::try_from(count).ok().and_then(|count| self.0.split_at_checked(count));
        let (taken, rest) =
            split.ok_or_else(|| format!("ends within a field: {} of {count} bytes", self.0.len()))?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), String> {
        let tag = self.number()?;
        let value = match tag & 7 {
            0 => Value::Number(self.number()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let count = self.number()?;
                Value::Bytes(self.take(count)?)
            }
            5 => {
                let bytes = self.take(4)?.as_chunks().0;
                Value::Fixed32(u32::from_le_bytes(bytes[0]))
            }
            other => return Err(format!("has a field of wire type {other}, expected 0, 1, 2 or 5")),
        };
        Ok((tag >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A length-delimited field with a short value.
    fn nested(number: u8, value: &[u8]) -> Vec<u8> {
        let length = u8::try_from(value.len()).expect("a short value");
        assert!(length < 0x80 && number < 16);
        [&[number << 3 | 2, length], value].concat()
    }

    fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
        let score = [&[2 << 3 | 5][..], &score.to_le_bytes()].concat();
        nested(1, &[nested(1, text.as_bytes()), score, vec![3 << 3, kind]].concat())
    }

    #[test]
    fn the_fields_that_matter_are_read_and_others_skipped() {
        let unknown_fields =
            [&[9 << 3 | 1][..], &[7; 8], &[10 << 3, 0x96, 0x01], &[11 << 3 | 5, 1, 2, 3, 4]].concat();
        let file = [
            piece("<unk>", 0.0, 2),
            piece("</s>", 0.0, 3),
            unknown_fields,
            piece("▁a", -1.5, 1),
            // field 35 has a tag of two bytes: 35 << 3 = 280
            nested(2, &[3 << 3, 1, 0x98, 0x02, 1]),
            nested(3, &nested(2, b"rules")),
        ]
        .concat();
        let text = |text: &str, score, kind| Piece { text: text.into(), score, kind };
        let want = Model {
            pieces: vec![
                text("<unk>", 0.0, Kind::Unknown),
                text("</s>", 0.0, Kind::Control),
                text("▁a", -1.5, Kind::Text),
            ],
            charsmap: b"rules".to_vec(),
            byte_fallback: true,
        };
        assert_eq!(read(&file), Ok(want));
    }

    #[test]
    fn faults_are_named() {
        let text = |bytes: &[u8]| read(bytes).expect_err("refused");
        assert_eq!(text(b""), "has no pieces, expected a SentencePiece model");
        assert_eq!(text(&nested(2, &[3 << 3, 2])), "is a model of type 2, expected 1 (unigram)");
        assert_eq!(text(&nested(1, &nested(1, &[0xff]))), "piece 0 is not UTF-8");
        assert_eq!(text(&piece("a", f32::NAN, 1)), "piece 0 has score NaN, expected a finite number");
        assert_eq!(text(&[1 << 3 | 2, 5, 0]), "ends within a field: 1 of 5 bytes");
        assert_eq!(text(&[1 << 3 | 2, 0x80]), "ends within a number");
        assert_eq!(text(&[0xff; 11]), "has a number of more than 64 bits");
        assert_eq!(text(&[1 << 3 | 3]), "has a field of wire type 3, expected 0, 1, 2 or 5");
    }

    #[test]
    fn every_prefix_and_every_flip_of_a_model_is_read_or_refused() {
        let file = [piece("<unk>", 0.0, 2), nested(2, &[3 << 3, 1]), nested(3, &nested(2, b"r"))].concat();
        let whole = read(&file).expect("a model");
        assert_eq!(whole.pieces.len(), 1);
        for end in 0..file.len() {
            // a cut within a field is a fault; between fields the rest has its defaults
            if let Ok(model) = read(&file[..end]) {
                assert_eq!(model.pieces, whole.pieces, "{end} bytes");
            }
        }
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut flipped = file.clone();
                flipped[at] ^= 1 << bit;
                assert!(read(&flipped).is_err() || read(&flipped).is_ok_and(|m| m.pieces.len() <= 2));
            }
        }
    }
}
