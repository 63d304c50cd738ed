//! The stack machine itself: opcodes of protocols 0 to 5 (CPython `Lib/pickle.py`), and the answers given in place of
//! torch's functions.

use std::collections::HashMap;

use super::input::Input;
use super::{Allowed, Id, Node, Pickle, PickleError, Result, StorageRef, TensorView, malformed};
use crate::convert::dtype::TorchDType;

/// Highest memo slot that a pickle may use.
const MAX_MEMO: u64 = 1 << 22;
/// Deepest nesting of marks, which open tuples, lists and dicts.
const MAX_MARKS: usize = 1000;
/// Highest tensor rank; torch itself prints up to 64, checkpoints have at most 3.
const MAX_RANK: usize = 8;

/// The stack machine.
pub(super) struct Machine<'a> {
    input: Input<'a>,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Heights of the stack at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// Entries copied from lists into dicts, the one thing that could grow faster than the file.
    copied: usize,
}

impl<'a> Machine<'a> {
    /// A machine about to run `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            input: Input::new(bytes),
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            copied: 0,
        }
    }

    /// Runs the program to its end.
    pub fn run(mut self) -> Result<Pickle> {
        loop {
            let start = self.input.at();
            let op = self.input.byte()?;
            match op {
                // frame: protocol, frames, stop
                0x80 => {
                    let protocol = self.input.byte()?;
                    if protocol > 5 {
                        return malformed(format!("pickle protocol {protocol}, expected at most 5"));
                    }
                }
                0x95 => {
                    let length = self.input.u64()?;
                    let left = u64::try_from(self.input.length() - self.input.at()).unwrap_or(u64::MAX);
                    if length > left {
                        return malformed(format!(
                            "a frame of {length} bytes, expected at most the {left} left"
                        ));
                    }
                }
                b'.' => {
                    let root = self.pop()?;
                    if !self.stack.is_empty() || !self.marks.is_empty() {
                        return malformed(format!(
                            "{} values left on the stack at the end, expected one",
                            self.stack.len() + 1
                        ));
                    }
                    return Ok(Pickle { nodes: self.nodes, root });
                }
                // atoms
                b'N' => self.push(Node::None),
                0x88 => self.push(Node::Bool(true)),
                0x89 => self.push(Node::Bool(false)),
                b'K' => {
                    let value = self.input.byte()?;
                    self.push(Node::Int(value.into()));
                }
                b'M' => {
                    let value = u16::from_le_bytes(self.input.array()?);
                    self.push(Node::Int(value.into()));
                }
                b'J' => {
                    let value = i32::from_le_bytes(self.input.array()?);
                    self.push(Node::Int(value.into()));
                }
                0x8a => {
                    let length = self.input.byte()?;
                    self.long(usize::from(length))?;
                }
                0x8b => {
                    let length = self.input.length4()?;
                    self.long(length)?;
                }
                b'I' => self.decimal_int()?,
                b'L' => {
                    let line = self.input.line()?;
                    let digits = line.strip_suffix('L').unwrap_or(line);
                    match digits.parse() {
                        Ok(value) => self.push(Node::Int(value)),
                        Err(_) => return malformed(format!("integer `{line}`, expected at most 64 bits")),
                    }
                }
                b'G' => {
                    let value = f64::from_be_bytes(self.input.array()?);
                    self.push(Node::Float(value));
                }
                b'F' => {
                    let line = self.input.line()?;
                    match line.parse() {
                        Ok(value) => self.push(Node::Float(value)),
                        Err(_) => return malformed(format!("float `{line}`, expected a decimal number")),
                    }
                }
                // text and bytes
                0x8c => {
                    let length = self.input.byte()?;
                    self.text(usize::from(length))?;
                }
                b'X' => {
                    let length = self.input.length4()?;
                    self.text(length)?;
                }
                0x8d => {
                    let length = self.input.length8()?;
                    self.text(length)?;
                }
                b'U' => {
                    let length = self.input.byte()?;
                    self.byte_text(usize::from(length))?;
                }
                b'T' => {
                    let length = self.input.length4()?;
                    self.byte_text(length)?;
                }
                b'C' => {
                    let length = self.input.byte()?;
                    self.raw(usize::from(length))?;
                }
                b'B' => {
                    let length = self.input.length4()?;
                    self.raw(length)?;
                }
                0x8e | 0x96 => {
                    let length = self.input.length8()?;
                    self.raw(length)?;
                }
                // tuples, lists, dicts
                b'(' => {
                    if self.marks.len() == MAX_MARKS {
                        return malformed(format!("nesting deeper than {MAX_MARKS} levels"));
                    }
                    self.marks.push(self.stack.len());
                }
                b')' => self.push(Node::Tuple(Vec::new())),
                0x85..=0x87 => {
                    let count = usize::from(op - 0x84);
                    let items = self.pop_many(count)?;
                    self.push(Node::Tuple(items));
                }
                b't' => {
                    let items = self.pop_mark()?;
                    self.push(Node::Tuple(items));
                }
                b']' => self.push(Node::List(Vec::new())),
                b'l' => {
                    let items = self.pop_mark()?;
                    self.push(Node::List(items));
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' => {
                    let items = self.pop_mark()?;
                    self.append(items)?;
                }
                b'}' => self.push(Node::Dict { entries: Vec::new(), ordered: false }),
                b'd' => {
                    let entries = pairs(self.pop_mark()?)?;
                    self.push(Node::Dict { entries, ordered: false });
                }
                b's' => {
                    let items = self.pop_many(2)?;
                    self.set_items(items)?;
                }
                b'u' => {
                    let items = self.pop_mark()?;
                    self.set_items(items)?;
                }
                // the stack and the memo
                b'0' => {
                    if self.marks.last() == Some(&self.stack.len()) {
                        self.marks.pop();
                    } else {
                        self.pop()?;
                    }
                }
                b'1' => drop(self.pop_mark()?),
                b'2' => {
                    let top = self.pop()?;
                    self.stack.extend([top, top]);
                }
                b'q' => {
                    let slot = self.input.byte()?;
                    self.put(slot.into())?;
                }
                b'r' => {
                    let slot = u32::from_le_bytes(self.input.array()?);
                    self.put(slot.into())?;
                }
                b'p' => {
                    let slot = self.decimal_slot()?;
                    self.put(slot)?;
                }
                0x94 => {
                    let slot = u64::try_from(self.memo.len()).unwrap_or(u64::MAX);
                    self.put(slot)?;
                }
                b'h' => {
                    let slot = self.input.byte()?;
                    self.get(slot.into())?;
                }
                b'j' => {
                    let slot = u32::from_le_bytes(self.input.array()?);
                    self.get(slot.into())?;
                }
                b'g' => {
                    let slot = self.decimal_slot()?;
                    self.get(slot)?;
                }
                // names, calls and attributes: only those of tensors
                b'c' => {
                    let module = self.input.line()?.to_string();
                    let name = self.input.line()?.to_string();
                    self.global(&module, &name)?;
                }
                0x93 => {
                    let items = self.pop_many(2)?;
                    let (Node::Str(module), Node::Str(name)) =
                        (&self.nodes[items[0].0], &self.nodes[items[1].0])
                    else {
                        return malformed("STACK_GLOBAL of values that are not text");
                    };
                    let (module, name) = (module.clone(), name.clone());
                    self.global(&module, &name)?;
                }
                b'R' => self.reduce()?,
                b'b' => self.build()?,
                b'Q' => self.persistent()?,
                _ => return self.refuse(op, start),
            }
        }
    }

    /// Opcodes that make objects, or are none.
    fn refuse<T>(&mut self, op: u8, at: usize) -> Result<T> {
        let what = match op {
            b'i' => {
                let module = self.input.line()?.to_string();
                return Err(PickleError::Refused(format!("{module}.{}", self.input.line()?)));
            }
            b'o' => "OBJ",
            0x81 => "NEWOBJ",
            0x92 => "NEWOBJ_EX",
            b'P' => "PERSID",
            0x82..=0x84 => "EXT",
            0x8f..=0x91 => "a set",
            0x97 | 0x98 => "an out-of-band buffer",
            _ => return malformed(format!("opcode 0x{op:02x} at byte {at}, expected one of pickle's")),
        };
        Err(PickleError::Refused(what.into()))
    }

    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        let allowed = match (module, name) {
            ("collections", "OrderedDict") => Allowed::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Allowed::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Allowed::RebuildParameter,
            ("torch", storage) => match TorchDType::of_storage(storage) {
                Some(dtype) => Allowed::Storage(dtype),
                None => return Err(PickleError::Refused(format!("torch.{storage}"))),
            },
            _ => return Err(PickleError::Refused(format!("{module}.{name}"))),
        };
        self.push(Node::Global(allowed));
        Ok(())
    }

    /// A call: answered with the value that the function would have made.
    fn reduce(&mut self) -> Result<()> {
        let popped = self.pop_many(2)?;
        let Node::Tuple(args) = &self.nodes[popped[1].0] else {
            return malformed("a call whose arguments are not a tuple");
        };
        let args = args.clone();
        let node = match &self.nodes[popped[0].0] {
            Node::Global(Allowed::OrderedDict) => self.ordered_dict(&args)?,
            Node::Global(Allowed::RebuildTensor) => self.rebuild_tensor(&args)?,
            Node::Global(Allowed::RebuildParameter) => match args.first().map(|id| &self.nodes[id.0]) {
                Some(Node::Tensor(view)) if args.len() == 3 => Node::Tensor(view.clone()),
                _ => return malformed("`torch._utils._rebuild_parameter` without a tensor and two flags"),
            },
            Node::Global(Allowed::Storage(dtype)) => {
                return Err(PickleError::Refused(format!("torch.{}()", dtype.storage_name())));
            }
            _ => return Err(PickleError::Refused("a call of something that is no function".into())),
        };
        self.push(node);
        Ok(())
    }

    /// `OrderedDict()` or `OrderedDict([[key, value], ...])`.
    fn ordered_dict(&mut self, args: &[Id]) -> Result<Node> {
        let mut entries = Vec::new();
        match args {
            [] => {}
            [list] => {
                let Node::List(items) = &self.nodes[list.0] else {
                    return malformed("`collections.OrderedDict` of something that is no list of pairs");
                };
                self.copied += items.len();
                if self.copied > self.input.length() {
                    return malformed("dicts with more entries than the pickle has bytes");
                }
                for item in items {
                    match &self.nodes[item.0] {
                        Node::List(pair) | Node::Tuple(pair) if pair.len() == 2 => {
                            entries.push((pair[0], pair[1]));
                        }
                        _ => {
                            return malformed(
                                "`collections.OrderedDict` of something that is no list of pairs",
                            );
                        }
                    }
                }
            }
            _ => return malformed(format!("`collections.OrderedDict` with {} arguments", args.len())),
        }
        Ok(Node::Dict { entries, ordered: true })
    }

    /// `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks, [metadata])`.
    fn rebuild_tensor(&self, args: &[Id]) -> Result<Node> {
        let what = "`torch._utils._rebuild_tensor_v2`";
        if !(6..=7).contains(&args.len()) {
            return malformed(format!("{what} with {} arguments, expected 6 or 7", args.len()));
        }
        let Node::Storage(storage) = &self.nodes[args[0].0] else {
            return malformed(format!("{what} of something that is no storage"));
        };
        let Some(offset) = self.count(args[1]) else {
            return malformed(format!("{what} with an offset that is no count"));
        };
        let (Some(shape), Some(strides)) = (self.counts(args[2]), self.counts(args[3])) else {
            return malformed(format!("{what} with a size or stride that is no tuple of counts"));
        };
        if shape.len() != strides.len() || shape.len() > MAX_RANK {
            return malformed(format!(
                "{what} with {} extents and {} strides, expected as many of both, at most {MAX_RANK}",
                shape.len(),
                strides.len()
            ));
        }
        let elements = shape.iter().try_fold(1u64, |n, &extent| n.checked_mul(extent));
        let Some(elements) = elements.filter(|&n| n <= storage.elements) else {
            return malformed(format!(
                "a tensor of shape {shape:?} on a storage of {} elements, expected at most as many",
                storage.elements
            ));
        };
        let last = shape.iter().zip(&strides).try_fold(offset, |last, (&extent, &stride)| {
            last.checked_add(extent.saturating_sub(1).checked_mul(stride)?)
        });
        if elements > 0 && last.is_none_or(|last| last >= storage.elements) {
            return malformed(format!(
                "a tensor of shape {shape:?}, strides {strides:?}, offset {offset} that reaches beyond its storage of {} \
                 elements",
                storage.elements
            ));
        }
        Ok(Node::Tensor(Box::new(TensorView { storage: (**storage).clone(), offset, shape, strides })))
    }

    /// Attributes: dropped from an OrderedDict (`state_dict()` leaves `_metadata` there), refused elsewhere.
    fn build(&mut self) -> Result<()> {
        self.pop()?;
        let target = *self.top()?;
        match &self.nodes[target.0] {
            Node::Dict { ordered: true, .. } => Ok(()),
            _ => Err(PickleError::Refused("attributes of an object (BUILD)".into())),
        }
    }

    /// A reference to a storage: `("storage", torch.FloatStorage, key, location, elements)`.
    fn persistent(&mut self) -> Result<()> {
        let id = self.pop()?;
        let Node::Tuple(parts) = &self.nodes[id.0] else {
            return malformed("a persistent id that is no tuple");
        };
        let parts: Vec<&Node> = parts.iter().map(|id| &self.nodes[id.0]).collect();
        let [
            Node::Str(tag),
            Node::Global(Allowed::Storage(dtype)),
            Node::Str(key),
            Node::Str(_),
            Node::Int(elements),
        ] = parts[..]
        else {
            return malformed("a persistent id that is no torch storage");
        };
        let plain =
            !key.is_empty() && key.len() <= 64 && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let (true, true, Ok(elements)) = (tag == "storage", plain, u64::try_from(*elements)) else {
            return malformed(format!(
                "storage `{key}` of {elements} elements, expected a plain name and a count"
            ));
        };
        let storage = StorageRef { dtype: *dtype, key: key.clone(), elements };
        self.push(Node::Storage(Box::new(storage)));
        Ok(())
    }

    fn count(&self, id: Id) -> Option<u64> {
        match self.nodes[id.0] {
            Node::Int(value) => u64::try_from(value).ok(),
            _ => None,
        }
    }

    fn counts(&self, id: Id) -> Option<Vec<u64>> {
        match &self.nodes[id.0] {
            Node::Tuple(items) | Node::List(items) => items.iter().map(|&item| self.count(item)).collect(),
            _ => None,
        }
    }

    fn push(&mut self, node: Node) {
        self.stack.push(Id(self.nodes.len()));
        self.nodes.push(node);
    }

    /// The lowest height the stack may be popped to: what lies below an open mark is out of reach.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<&Id> {
        self.stack[self.floor()..].last().ok_or_else(|| PickleError::Malformed("the stack is empty".into()))
    }

    fn pop(&mut self) -> Result<Id> {
        let top = *self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>> {
        let height = self.stack.len();
        if height - self.floor() < count {
            return malformed(format!("{} values on the stack, expected {count}", height - self.floor()));
        }
        Ok(self.stack.split_off(height - count))
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => malformed("no mark on the stack, expected one"),
        }
    }

    fn append(&mut self, mut items: Vec<Id>) -> Result<()> {
        let target = *self.top()?;
        match &mut self.nodes[target.0] {
            Node::List(list) => list.append(&mut items),
            _ => return malformed("values appended to something that is no list"),
        }
        Ok(())
    }

    fn set_items(&mut self, items: Vec<Id>) -> Result<()> {
        let mut new = pairs(items)?;
        let target = *self.top()?;
        match &mut self.nodes[target.0] {
            Node::Dict { entries, .. } => entries.append(&mut new),
            _ => return malformed("entries set on something that is no dict"),
        }
        Ok(())
    }

    fn put(&mut self, slot: u64) -> Result<()> {
        if slot >= MAX_MEMO {
            return malformed(format!("memo slot {slot}, expected less than {MAX_MEMO}"));
        }
        let top = *self.top()?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn get(&mut self, slot: u64) -> Result<()> {
        match self.memo.get(&slot) {
            Some(&id) => {
                self.stack.push(id);
                Ok(())
            }
            None => malformed(format!("memo slot {slot} is read but was never written")),
        }
    }

    fn text(&mut self, length: usize) -> Result<()> {
        match std::str::from_utf8(self.input.take(length)?) {
            Ok(text) => {
                let text = text.to_string();
                self.push(Node::Str(text));
                Ok(())
            }
            Err(_) => malformed("text that is not UTF-8"),
        }
    }

    /// A Python 2 string: text where it is UTF-8, bytes otherwise.
    fn byte_text(&mut self, length: usize) -> Result<()> {
        let bytes = self.input.take(length)?.to_vec();
        let node = String::from_utf8(bytes).map_or_else(|e| Node::Bytes(e.into_bytes()), Node::Str);
        self.push(node);
        Ok(())
    }

    fn raw(&mut self, length: usize) -> Result<()> {
        let bytes = self.input.take(length)?.to_vec();
        self.push(Node::Bytes(bytes));
        Ok(())
    }

    /// A two's complement integer of `length` bytes.
    fn long(&mut self, length: usize) -> Result<()> {
        let bytes = self.input.take(length)?;
        if length > 8 {
            return malformed(format!("an integer of {length} bytes, expected at most 8"));
        }
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut wide = if negative { [0xff; 8] } else { [0; 8] };
        wide[..length].copy_from_slice(bytes);
        self.push(Node::Int(i64::from_le_bytes(wide)));
        Ok(())
    }

    /// Protocol 0's INT, which also spells the booleans.
    fn decimal_int(&mut self) -> Result<()> {
        let line = self.input.line()?;
        let node = match (line, line.parse()) {
            ("00", _) => Node::Bool(false),
            ("01", _) => Node::Bool(true),
            (_, Ok(value)) => Node::Int(value),
            _ => return malformed(format!("integer `{line}`, expected at most 64 bits")),
        };
        self.push(node);
        Ok(())
    }

    fn decimal_slot(&mut self) -> Result<u64> {
        let line = self.input.line()?;
        line.parse().or_else(|_| malformed(format!("memo slot `{line}`, expected a number")))
    }
}

fn pairs(items: Vec<Id>) -> Result<Vec<(Id, Id)>> {
    if !items.len().is_multiple_of(2) {
        return malformed(format!("{} keys and values, expected an even number", items.len()));
    }
    Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}
