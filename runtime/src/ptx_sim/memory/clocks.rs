//! Who is ordered after whom in a block: vector clocks over warps, with lanes told apart where they must be.
//!
//! The time of a warp is the number of its instruction. Every warp knows, for every warp, up to which time all of what
//! that warp did is ordered before its own next instruction; what only some lanes know, or what is known of some lanes
//! only, is kept beside that until a synchronisation of the whole warp. A barrier object has an entry too: the number of
//! its completed phases.

/// One thread of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Warp in the block.
    pub warp: u32,
    /// Lane in the warp.
    pub lane: u32,
}

impl Thread {
    /// The warp as an index.
    pub(super) fn row(self) -> usize {
        self.warp as usize
    }

    /// The lane as a bit.
    pub(super) fn bit(self) -> u32 {
        1 << self.lane
    }
}

/// Some lanes of a warp, up to a time of that warp.
#[derive(Clone, Copy)]
struct Lanes {
    entry: usize,
    lanes: u32,
    time: u32,
}

/// A set of things that happened.
#[derive(Clone, Default)]
pub(super) struct Known {
    /// For each entry, the time up to which everything is in the set.
    all: Vec<u32>,
    /// Lanes of which more is in the set; of one warp, no lane twice.
    lanes: Vec<Lanes>,
}

impl Known {
    pub(super) fn nothing(entries: usize) -> Self {
        Self { all: vec![0; entries], lanes: Vec::new() }
    }

    /// Times up to which everything is known, by entry.
    #[inline]
    pub(super) fn all(&self) -> &[u32] {
        &self.all
    }

    /// Adds everything that an entry did up to a time.
    pub(super) fn raise(&mut self, entry: usize, time: u32) {
        if self.all[entry] < time {
            self.all[entry] = time;
            self.lanes.retain(|set| set.entry != entry || set.time > time);
        }
    }

    /// Adds what some lanes of a warp did up to a time.
    fn add(&mut self, mut new: Lanes) {
        if new.time <= self.all[new.entry] {
            return;
        }
        if new.lanes == u32::MAX {
            return self.raise(new.entry, new.time);
        }
        let mut same_time = None;
        for (i, set) in self.lanes.iter_mut().enumerate().filter(|(_, set)| set.entry == new.entry) {
            if set.time > new.time {
                new.lanes &= !set.lanes;
            } else if set.time == new.time {
                same_time = Some(i);
            } else {
                set.lanes &= !new.lanes;
            }
        }
        match same_time {
            Some(i) => self.lanes[i].lanes |= new.lanes,
            None => self.lanes.push(new),
        }
        self.lanes.retain(|set| set.lanes != 0);
        let of_entry = || self.lanes.iter().filter(|set| set.entry == new.entry);
        if of_entry().fold(0, |lanes, set| lanes | set.lanes) == u32::MAX {
            let least = of_entry().map(|set| set.time).min().expect("the lanes are in some set");
            self.raise(new.entry, least);
        }
    }

    /// Adds all of another set.
    pub(super) fn join(&mut self, other: &Self) {
        for (mine, &theirs) in self.all.iter_mut().zip(&other.all) {
            *mine = (*mine).max(theirs);
        }
        if !self.lanes.is_empty() {
            let all = &self.all;
            self.lanes.retain(|set| set.time > all[set.entry]);
        }
        for &set in &other.lanes {
            self.add(set);
        }
    }

    pub(super) fn holds(&self, entry: usize, lane: u32, time: u32) -> bool {
        time <= self.all[entry]
            || self
                .lanes
                .iter()
                .any(|set| set.entry == entry && set.lanes >> lane & 1 == 1 && time <= set.time)
    }
}

/// What only some lanes of a warp know.
struct Partial {
    lanes: u32,
    /// Barrier entry and phase that it was learned from.
    source: Option<(usize, u32)>,
    known: Known,
}

/// The clocks of a block.
pub(super) struct Clocks {
    /// Number of the current instruction of each warp.
    now: Vec<u32>,
    /// Time of each warp that others may know already; what is done later must have a later time.
    released: Vec<u32>,
    common: Vec<Known>,
    partial: Vec<Vec<Partial>>,
    entries: usize,
}

impl Clocks {
    /// Clocks of so many warps and at most so many barrier objects.
    pub(super) fn new(warps: usize, barriers: usize) -> Self {
        let entries = warps + barriers;
        Self {
            now: vec![1; warps],
            released: vec![0; warps],
            common: vec![Known::nothing(entries); warps],
            partial: (0..warps).map(|_| Vec::new()).collect(),
            entries,
        }
    }

    pub(super) fn warps(&self) -> usize {
        self.now.len()
    }

    /// A set of nothing, for these clocks.
    pub(super) fn nothing(&self) -> Known {
        Known::nothing(self.entries)
    }

    #[inline]
    pub(super) fn now(&self, warp: usize) -> u32 {
        self.now[warp]
    }

    /// Begins the next instruction of a warp.
    #[inline]
    pub(super) fn begin(&mut self, warp: usize) {
        self.now[warp] += 1;
    }

    /// A time for something done now, that no earlier release of the warp covers.
    pub(super) fn fresh(&mut self, warp: usize) -> u32 {
        if self.now[warp] == self.released[warp] {
            self.now[warp] += 1;
        }
        self.now[warp]
    }

    /// What all lanes of a warp know.
    #[inline]
    pub(super) fn common(&self, warp: usize) -> &Known {
        &self.common[warp]
    }

    /// Whether what a lane of `entry` did at a time is ordered before what `who` does next.
    #[inline]
    pub(super) fn knows(&self, who: Thread, entry: usize, lane: u32, time: u32) -> bool {
        time <= self.common[who.row()].all[entry]
            || (entry == who.row() && lane == who.lane)
            || self.knows_apart(who, entry, lane, time)
    }

    fn knows_apart(&self, who: Thread, entry: usize, lane: u32, time: u32) -> bool {
        self.common[who.row()].holds(entry, lane, time)
            || self.partial[who.row()]
                .iter()
                .any(|partial| partial.lanes & who.bit() != 0 && partial.known.holds(entry, lane, time))
    }

    /// Whether what any one lane of a warp did at a time is ordered before what `who` does next.
    pub(super) fn knows_some_lane(&self, who: Thread, warp: usize, time: u32) -> bool {
        who.row() == warp || (0..32).any(|lane| self.knows(who, warp, lane, time))
    }

    /// Orders what these lanes of a warp did before what any of them does next.
    pub(super) fn warp_sync(&mut self, warp: usize, lanes: u32) {
        let now = self.now[warp];
        self.released[warp] = now;
        if lanes == u32::MAX {
            self.common[warp].raise(warp, now);
            for partial in std::mem::take(&mut self.partial[warp]) {
                self.common[warp].join(&partial.known);
            }
            return;
        }
        let mut known = self.nothing();
        known.add(Lanes { entry: warp, lanes, time: now });
        let partials = &mut self.partial[warp];
        for partial in partials.iter().filter(|partial| partial.lanes & lanes != 0) {
            known.join(&partial.known);
        }
        partials.retain(|partial| partial.lanes & !lanes != 0);
        partials.push(Partial { lanes, source: None, known });
    }

    /// Adds all that is ordered before a thread's next instruction, and what it did itself.
    pub(super) fn release(&mut self, who: Thread, into: &mut Known) {
        let warp = who.row();
        into.join(&self.common[warp]);
        for partial in self.partial[warp].iter().filter(|partial| partial.lanes & who.bit() != 0) {
            into.join(&partial.known);
        }
        into.add(Lanes { entry: warp, lanes: who.bit(), time: self.now[warp] });
        self.released[warp] = self.now[warp];
    }

    /// Orders a set before a thread's next instruction: it saw a phase of a barrier completed.
    pub(super) fn acquire(&mut self, who: Thread, source: (usize, u32), known: &Known) {
        let common = &mut self.common[who.row()];
        if common.all[source.0] >= source.1 {
            return;
        }
        let partials = &mut self.partial[who.row()];
        let Some(i) = partials.iter().position(|partial| partial.source == Some(source)) else {
            merge_alike(partials);
            partials.push(Partial { lanes: who.bit(), source: Some(source), known: known.clone() });
            return;
        };
        partials[i].lanes |= who.bit();
        if partials[i].lanes == u32::MAX {
            common.join(&partials.swap_remove(i).known);
        }
    }

    /// Orders all that whole warps did, and what is known of others, before all that they do next.
    pub(super) fn barrier(&mut self, warps: &[u32], mut met: Known) {
        for &warp in warps {
            self.release_warp(warp as usize, &mut met);
        }
        for &warp in warps {
            self.common[warp as usize].clone_from(&met);
        }
    }

    /// Adds all that is ordered before the next instruction of a warp whose lanes are together, and what they did.
    pub(super) fn release_warp(&mut self, warp: usize, into: &mut Known) {
        self.warp_sync(warp, u32::MAX);
        into.join(&self.common[warp]);
    }
}

/// Joins what the same lanes know from different sources, so that the list stays short.
fn merge_alike(partials: &mut Vec<Partial>) {
    let mut i = 0;
    while i < partials.len() {
        match partials[..i].iter().position(|earlier| earlier.lanes == partials[i].lanes) {
            Some(earlier) => {
                let merged = partials.remove(i);
                partials[earlier].known.join(&merged.known);
                partials[earlier].source = None;
            }
            None => i += 1,
        }
    }
}
