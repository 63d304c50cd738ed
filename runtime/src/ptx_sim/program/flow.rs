//! Where lanes that part at a branch meet again: its immediate post-dominator.

use super::{Instruction, NEVER, Op};

/// Fills in [`Instruction::reconverge`] of every branch.
pub fn reconverge(code: &mut [Instruction]) {
    let blocks = Blocks::new(code);
    let post = blocks.post_dominators();
    for (block, meet) in post.iter().enumerate().take(blocks.starts.len()) {
        let last = blocks.end(block, code.len()) - 1;
        if matches!(code[last].op, Op::Branch { .. }) {
            code[last].reconverge = match meet {
                Some(meet) if *meet < blocks.starts.len() => blocks.starts[*meet],
                _ => NEVER,
            };
        }
    }
}

/// Basic blocks; the number after the last stands for the end of the program.
struct Blocks {
    starts: Vec<usize>,
    successors: Vec<Vec<usize>>,
}

impl Blocks {
    fn new(code: &[Instruction]) -> Self {
        let mut leads = vec![false; code.len() + 1];
        leads[0] = true;
        for (at, instruction) in code.iter().enumerate() {
            match instruction.op {
                Op::Branch { target, .. } => {
                    leads[target] = true;
                    leads[at + 1] = true;
                }
                Op::Exit => leads[at + 1] = true,
                Op::Lanes(_) | Op::Act(_) => {}
            }
        }
        let starts: Vec<usize> = (0..code.len()).filter(|&at| leads[at]).collect();
        let block_of = |at: usize| starts.partition_point(|&start| start <= at) - 1;
        let exit = starts.len();
        let mut successors = Vec::with_capacity(exit);
        for (block, &start) in starts.iter().enumerate() {
            let end = starts.get(block + 1).copied().unwrap_or(code.len());
            debug_assert!(start < end, "blocks hold instructions");
            let last = &code[end - 1];
            let next = if end < code.len() { block + 1 } else { exit };
            successors.push(match (&last.op, last.guard) {
                (Op::Branch { target, .. }, None) => vec![block_of(*target)],
                (Op::Branch { target, .. }, Some(_)) => vec![block_of(*target), next],
                (Op::Exit, None) => vec![exit],
                // a lane that goes on is not to wait for one that left, see `reach_the_end`
                (Op::Exit, Some(_)) | (Op::Lanes(_) | Op::Act(_), _) => vec![next],
            });
        }
        let mut blocks = Self { starts, successors };
        blocks.reach_the_end(code);
        blocks
    }

    /// A loop that is left by a guarded exit alone has no other way to the end: there that way counts.
    fn reach_the_end(&mut self, code: &[Instruction]) {
        let exit = self.starts.len();
        let predecessors = self.predecessors();
        let mut reaches = vec![false; exit + 1];
        let mut walk = vec![exit];
        while let Some(block) = walk.pop() {
            if !std::mem::replace(&mut reaches[block], true) {
                walk.extend(&predecessors[block]);
            }
        }
        for block in (0..exit).filter(|&block| !reaches[block]) {
            if matches!(code[self.end(block, code.len()) - 1].op, Op::Exit) {
                self.successors[block].push(exit);
            }
        }
    }

    fn predecessors(&self) -> Vec<Vec<usize>> {
        let mut predecessors = vec![Vec::new(); self.starts.len() + 1];
        for (block, successors) in self.successors.iter().enumerate() {
            for &to in successors {
                predecessors[to].push(block);
            }
        }
        predecessors
    }

    fn end(&self, block: usize, code: usize) -> usize {
        self.starts.get(block + 1).copied().unwrap_or(code)
    }

    /// The immediate post-dominator of every block, `None` where no way leads to the end. Cooper, Harvey and Kennedy, "A
    /// Simple, Fast Dominance Algorithm", on the graph turned around.
    fn post_dominators(&self) -> Vec<Option<usize>> {
        let exit = self.starts.len();
        let predecessors = self.predecessors();
        // post-order of a walk from the end against the arrows
        let mut order = Vec::new();
        let mut rank = vec![None; exit + 1];
        let mut seen = vec![false; exit + 1];
        let mut walk = vec![(exit, 0)];
        seen[exit] = true;
        while let Some((block, child)) = walk.last_mut() {
            if let Some(&next) = predecessors[*block].get(*child) {
                *child += 1;
                if !seen[next] {
                    seen[next] = true;
                    walk.push((next, 0));
                }
            } else {
                rank[*block] = Some(order.len());
                order.push(*block);
                walk.pop();
            }
        }
        let mut post = vec![None; exit + 1];
        post[exit] = Some(exit);
        let meet = |post: &[Option<usize>], mut a: usize, mut b: usize| {
            while a != b {
                while rank[a] < rank[b] {
                    a = post[a].expect("ranked blocks have one by now");
                }
                while rank[b] < rank[a] {
                    b = post[b].expect("ranked blocks have one by now");
                }
            }
            a
        };
        loop {
            let mut changed = false;
            for &block in order.iter().rev().filter(|&&b| b != exit) {
                let known = self.successors[block].iter().copied().filter(|&s| post[s].is_some());
                let new = known.reduce(|a, b| meet(&post, a, b));
                if new != post[block] {
                    post[block] = new;
                    changed = true;
                }
            }
            if !changed {
                return post;
            }
        }
    }
}
