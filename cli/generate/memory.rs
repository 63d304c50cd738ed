//! What a run will need, reckoned before it starts.

use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::capture::Batch;
use auscult_model::musicgen::Decoder;
use auscult_model::musicgen::generate::{Generator, GeneratorOptions, Take};

/// Takes side by side at most, where nobody says how many: more of them no longer play faster each.
const MOST_SLOTS: usize = 64;

/// Bytes of host memory beside the caches.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// However many takes play.
    pub shared: usize,
    /// For each of them.
    pub slot: usize,
}

/// How many takes play side by side.
///
/// Caches need host memory too unless the device has its own, whose allocation is its own check. Nothing is refused where the
/// host does not say what is free.
///
/// # Errors
/// Memory that not even one take fits, or not as many as were asked for.
pub fn slots(
    decoder: &Decoder,
    takes: &[Take],
    window: usize,
    batch: Batch,
    host: Host,
    accelerator: bool,
) -> Result<usize> {
    let free = available();
    let needed = |slots| {
        let options = GeneratorOptions { slots, window: Some(window), ..GeneratorOptions::default() };
        let caches = if accelerator { 0 } else { Generator::cache_bytes(decoder, takes, &options) };
        caches.saturating_add(host.shared).saturating_add(host.slot.saturating_mul(slots))
    };
    let fits = |slots| free.is_none_or(|free| needed(slots) <= free);
    let refuse = |argument: &str, slots: usize| {
        let message = format!(
            "`{argument}`: {slots} takes side by side need {} MB, expected at most the {} MB of memory that are available",
            needed(slots) >> 20,
            free.unwrap_or(usize::MAX) >> 20
        );
        Err(Failure::usage(message))
    };
    match batch {
        Batch::Clips(slots) => {
            let slots = slots.min(takes.len());
            if fits(slots) { Ok(slots) } else { refuse(if fits(1) { "--batch" } else { "--seconds" }, slots) }
        }
        Batch::Auto => {
            let most = takes.len().min(MOST_SLOTS);
            (1..=most).rev().find(|&slots| fits(slots)).map_or_else(|| refuse("--seconds", 1), Ok)
        }
    }
}

/// Bytes of host memory that are free or can be freed, where the system says so.
fn available() -> Option<usize> {
    parse(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read() {
        let text = "MemTotal:       24000000 kB\nMemAvailable:   12345 kB\nBuffers: 1 kB\n";
        assert_eq!(parse(text), Some(12_345 * 1024));
        assert_eq!(parse("MemTotal: 1 kB\n"), None);
        assert_eq!(parse("MemAvailable: many\n"), None);
    }
}
