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

/// Memory that takes share.
struct Place<'a> {
    name: String,
    /// What is free of it; `None` where nobody says.
    free: Option<usize>,
    /// What so many takes need of it.
    needed: Box<dyn Fn(usize) -> usize + 'a>,
}

/// How many takes play side by side.
///
/// Caches and weights lie in the device's own memory where it has some, else in the host's. Nothing is refused for memory of
/// which nobody says how much is free: there an allocation is its own check.
///
/// # Errors
/// Memory that not even one take fits, or not as many as were asked for.
pub fn slots(decoder: &Decoder, takes: &[Take], window: usize, batch: Batch, host: Host) -> Result<usize> {
    let caches = |slots| {
        let options = GeneratorOptions { slots, window: Some(window), ..GeneratorOptions::default() };
        Generator::cache_bytes(decoder, takes, &options)
    };
    let of_host = move |slots| host.shared.saturating_add(host.slot.saturating_mul(slots));
    let mut hosts = Place { name: "memory".into(), free: available(), needed: Box::new(of_host) };
    let backend = decoder.backend();
    let mut places = Vec::new();
    match backend.info().accelerator {
        true => places.push(Place {
            name: format!("memory of {}", backend.info().id),
            free: backend.free_memory(),
            needed: Box::new(move |slots| caches(slots).saturating_add(decoder.weight_bytes())),
        }),
        // weights are mapped
        false => hosts.needed = Box::new(move |slots| caches(slots).saturating_add(of_host(slots))),
    }
    places.push(hosts);
    choose(batch, takes.len(), &places)
}

fn choose(batch: Batch, takes: usize, places: &[Place<'_>]) -> Result<usize> {
    let short = |slots| {
        let is_short = |place: &&Place<'_>| place.free.is_some_and(|free| (place.needed)(slots) > free);
        places.iter().find(is_short)
    };
    let refuse = |argument: &str, slots: usize, place: &Place<'_>| {
        let message = format!(
            "`{argument}`: {slots} takes side by side need {} MB, expected at most the {} MB of {} that are available",
            (place.needed)(slots) >> 20,
            place.free.unwrap_or(usize::MAX) >> 20,
            place.name
        );
        Err(Failure::usage(message))
    };
    match batch {
        Batch::Clips(slots) => {
            let slots = slots.min(takes);
            let argument = if short(1).is_none() { "--batch" } else { "--seconds" };
            short(slots).map_or(Ok(slots), |place| refuse(argument, slots, place))
        }
        Batch::Auto => match (1..=takes.min(MOST_SLOTS)).rev().find(|&slots| short(slots).is_none()) {
            Some(slots) => Ok(slots),
            None => short(1).map_or(Ok(1), |place| refuse("--seconds", 1, place)),
        },
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
    fn as_many_play_as_the_scarcest_memory_holds() {
        let place = |name: &str, free, slot: usize| {
            let needed = Box::new(move |slots| (slots * slot) << 20);
            Place { name: name.into(), free, needed }
        };
        let places = [
            place("memory of cuda:0", Some(100 << 20), 9),
            place("memory", Some(64 << 20), 1),
            place("a third", None, 1 << 20),
        ];
        assert_eq!(choose(Batch::Auto, 40, &places).unwrap(), 11);
        assert_eq!(choose(Batch::Auto, 5, &places).unwrap(), 5);
        assert_eq!(choose(Batch::Clips(40), 11, &places).unwrap(), 11);
        let said = |batch, takes, places: &[Place<'_>]| choose(batch, takes, places).unwrap_err().to_string();
        assert_eq!(
            said(Batch::Clips(12), 40, &places),
            "`--batch`: 12 takes side by side need 108 MB, expected at most the 100 MB of memory of cuda:0 that are available"
        );
        let none = [place("memory", Some(1 << 20), 2)];
        let expected = "`--seconds`: 1 takes side by side need 2 MB, expected at most the 1 MB of memory that are available";
        assert_eq!(said(Batch::Auto, 40, &none), expected);
        assert_eq!(said(Batch::Clips(1), 40, &none), expected);
    }

    #[test]
    fn meminfo_is_read() {
        let text = "MemTotal:       24000000 kB\nMemAvailable:   12345 kB\nBuffers: 1 kB\n";
        assert_eq!(parse(text), Some(12_345 * 1024));
        assert_eq!(parse("MemTotal: 1 kB\n"), None);
        assert_eq!(parse("MemAvailable: many\n"), None);
    }
}
