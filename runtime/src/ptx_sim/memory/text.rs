//! Wording shared by refusals.

use super::clocks::Thread;
use std::fmt;

impl fmt::Display for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "warp {} lane {}", self.warp, self.lane)
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
