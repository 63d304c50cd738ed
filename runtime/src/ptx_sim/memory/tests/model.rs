//! Random programs, held against a model that keeps everything: a clock for each thread, every access of each byte.

use super::*;

const WARPS: u32 = 3;
/// Lanes that do something; synchronisations of a whole warp are of all 32.
const LANES: u32 = 4;
const THREADS: usize = (WARPS * LANES) as usize;
const BYTES: u32 = 16;
const BAR: u32 = 512;

type Clock = [u32; THREADS];

#[derive(Clone, Copy, PartialEq, Debug)]
enum Access {
    Read,
    Write,
    Atomic,
}

struct Model {
    clocks: [Clock; THREADS],
    bytes: Vec<Vec<(usize, u32, Access)>>,
    written: [bool; BYTES as usize],
    arrived: Clock,
    published: Clock,
}

fn join(into: &mut Clock, from: &Clock) {
    for (mine, theirs) in into.iter_mut().zip(from) {
        *mine = (*mine).max(*theirs);
    }
}

impl Model {
    fn new() -> Self {
        Self {
            clocks: [[0; THREADS]; THREADS],
            bytes: vec![Vec::new(); BYTES as usize],
            written: [false; BYTES as usize],
            arrived: [0; THREADS],
            published: [0; THREADS],
        }
    }

    fn meet(&mut self, threads: &[usize]) {
        let mut all = [0; THREADS];
        for &thread in threads {
            join(&mut all, &self.clocks[thread]);
        }
        for &thread in threads {
            self.clocks[thread] = all;
        }
    }

    /// Whether an access is legal.
    fn access(&mut self, thread: usize, address: u32, len: u32, access: Access) -> Result<(), FaultKind> {
        self.clocks[thread][thread] += 1;
        let known = self.clocks[thread];
        let mut legal = Ok(());
        for byte in (address..address + len).map(|byte| byte as usize) {
            let conflict = |&(other, time, earlier): &(usize, u32, Access)| {
                let both = (access == Access::Read && earlier == Access::Read)
                    || (access == Access::Atomic && earlier == Access::Atomic);
                !both && other != thread && time > known[other]
            };
            if access != Access::Write && !self.written[byte] {
                legal = Err(FaultKind::Uninitialised);
            } else if legal.is_ok() && self.bytes[byte].iter().any(conflict) {
                legal = Err(FaultKind::Race);
            }
            self.written[byte] = true;
            self.bytes[byte].push((thread, known[thread], access));
        }
        legal
    }
}

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        u32::try_from(high % u64::from(n)).unwrap()
    }
}

fn index(who: Thread) -> usize {
    (who.warp * LANES + who.lane) as usize
}

/// Executes one random instruction in both; the verdicts, if it is an access.
fn step(
    random: &mut Random,
    block: &mut Block,
    model: &mut Model,
    apart: bool,
) -> Option<(Result<(), FaultKind>, Result<(), Refusal>)> {
    let who = thread(random.below(WARPS), random.below(LANES));
    block.shared.begin_instruction(who.warp);
    match random.below(if apart { 16 } else { 12 }) {
        0 => {
            block.shared.barrier(&[0, 1, 2]);
            model.meet(&Vec::from_iter(0..THREADS));
        }
        1 => {
            let warps = [[0, 1], [1, 2], [0, 2]][random.below(3) as usize];
            block.shared.barrier(&warps);
            let threads =
                warps.iter().flat_map(|warp| (0..LANES).map(move |lane| index(thread(*warp, lane))));
            model.meet(&Vec::from_iter(threads));
        }
        2 => {
            block.shared.warp_sync(who.warp, u32::MAX);
            model.meet(&Vec::from_iter((0..LANES).map(|lane| index(thread(who.warp, lane)))));
        }
        12 => {
            let lanes = 1 << who.lane | 1 << random.below(LANES);
            block.shared.warp_sync(who.warp, lanes);
            let both = (0..LANES).filter(|lane| lanes >> lane & 1 == 1);
            model.meet(&Vec::from_iter(both.map(|lane| index(thread(who.warp, lane)))));
        }
        13 | 14 => {
            let phase = block.shared.mbarrier_arrive(who, BAR, 1, 0).unwrap();
            join(&mut model.arrived, &model.clocks[index(who)]);
            if block.shared.mbarrier_test_state(thread(0, 31), BAR, phase).unwrap() {
                model.published = model.arrived;
            }
        }
        15 => {
            // the last phase that was completed, whichever parity it had
            let seen = [false, true].map(|parity| block.shared.mbarrier_test(who, BAR, parity).unwrap());
            assert_ne!(seen[0], seen[1]);
            join(&mut model.clocks[index(who)], &model.published);
        }
        n => {
            let len = 1 << random.below(4);
            let access = match n {
                11 => Access::Atomic,
                6.. => Access::Read,
                _ => Access::Write,
            };
            // a word that atomics touch is one thing: its parts are not told apart, and here not accessed
            let len = if access == Access::Atomic { 4 } else { len };
            let address = match access {
                Access::Atomic => BYTES - 4,
                _ => random.below(if len < 4 { BYTES - 4 } else { BYTES } / len) * len,
            };
            let mut bytes = vec![0; len as usize];
            let got = match access {
                Access::Read => block.shared.read(who, address, &mut bytes),
                Access::Write => block.shared.write(who, address, &bytes),
                Access::Atomic => block.shared.atomic(who, address, 4, &|v| v).map(drop),
            };
            return Some((model.access(index(who), address, len, access), got));
        }
    }
    None
}

/// Runs random programs until a fault; how many faults there were, and how many of them were missed.
fn run(seeds: u64, apart: bool) -> (u32, u32) {
    let (mut faults, mut missed) = (0, 0);
    for seed in 1..=seeds {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut block = Block::new(WARPS as usize);
        let mut model = Model::new();
        block.shared.mbarrier_init(thread(0, 31), BAR, 2).unwrap();
        block.barrier();
        for address in (0..BYTES).step_by(8) {
            let who = thread(random.below(WARPS), random.below(LANES));
            block.write_bytes(who, address, &[0; 8]).unwrap();
            model.access(index(who), address, 8, Access::Write).unwrap();
        }
        block.barrier();
        model.meet(&Vec::from_iter(0..THREADS));
        for _ in 0..60 {
            let Some((expected, got)) = step(&mut random, &mut block, &mut model, apart) else { continue };
            match (expected, got) {
                (Ok(()), Ok(())) => continue,
                (Err(kind), Err(refusal)) => assert_eq!(kind, refusal.kind, "seed {seed}: {refusal}"),
                (Ok(()), Err(refusal)) => panic!("seed {seed}: refused without reason: {refusal}"),
                (Err(_), Ok(())) => missed += 1,
            }
            faults += 1;
            break;
        }
    }
    (faults, missed)
}

#[test]
fn with_synchronisations_of_whole_warps_verdicts_are_exact() {
    let (faults, missed) = run(20_000, false);
    assert!(faults > 10_000, "{faults} faults are too few to tell anything");
    assert_eq!(missed, 0, "of {faults}");
}

#[test]
fn with_lanes_apart_nothing_legal_is_refused_and_little_is_missed() {
    let (faults, missed) = run(20_000, true);
    assert!(faults > 10_000, "{faults} faults are too few to tell anything");
    // readers of which only a bound is remembered
    assert!(missed * 200 < faults, "{missed} of {faults}");
    println!("{missed} of {faults} missed");
}
