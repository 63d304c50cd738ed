//! Wording shared by refusals.

use super::clocks::Thread;
use super::shared::Shared;
use super::slow::At;
use std::fmt;

impl fmt::Display for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "warp {} lane {}", self.warp, self.lane)
    }
}

/// A named range of shared memory.
pub(super) struct Label {
    pub(super) name: String,
    pub(super) address: u32,
    pub(super) bytes: u32,
}

impl Shared {
    /// `read of 4 bytes at shared 0x120 (`tile` + 32)`.
    pub(super) fn describe(&self, at: &At) -> String {
        let holds = |label: &&Label| (label.address..label.address + label.bytes).contains(&at.address);
        let place = match self.labels().iter().find(holds) {
            Some(label) => format!(" (`{}` + {})", label.name, at.address - label.address),
            None => String::new(),
        };
        format!("{} of {} bytes at shared {:#x}{place}", at.what, at.bytes, at.address)
    }
}

/// `all were`, `byte 3 was`, `bytes 1, 2 were`.
pub(super) fn byte_list(missing: &[usize], of: usize) -> String {
    match missing {
        _ if missing.len() == of => "all were".into(),
        [byte] => format!("byte {byte} was"),
        bytes => {
            let list: Vec<String> = bytes.iter().map(usize::to_string).collect();
            format!("bytes {} were", list.join(", "))
        }
    }
}
