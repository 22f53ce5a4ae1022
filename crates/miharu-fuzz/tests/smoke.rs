//! Every target takes its corpus and a few thousand inputs made of it: what was found once stays mended. The inputs are the same each
//! time.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test says what went wrong by panicking")]

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use miharu_fuzz::{TARGETS, Target};
use rustix::time::{ClockId, clock_gettime};

/// Inputs a target, beside its corpus.
const INPUTS: usize = 3000;
/// What a target gets at most, however slow the machine is.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most CPU time that one input may cost, in a build without optimisation.
const COST: Duration = Duration::from_secs(2);
/// The longest input.
const LENGTH: usize = 4096;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus")
}

#[test]
fn every_target_takes_what_is_made_of_its_corpus() {
    let waiting = Mutex::new(TARGETS.iter());
    let problems = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(target) = waiting.lock().unwrap().next() else { break };
                    if let Err(problem) = run(target) {
                        problems.lock().unwrap().push(problem);
                    }
                }
            });
        }
    });
    let problems = problems.into_inner().unwrap();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_target_has_a_small_corpus_and_no_other_is_kept() {
    let kept: BTreeSet<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let known: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(kept, known);
    for target in TARGETS {
        let sizes: Vec<usize> = corpus(target).iter().map(Vec::len).collect();
        assert!(!sizes.is_empty() && sizes.iter().sum::<usize>() <= 64 << 10, "{}: {sizes:?}", target.name);
    }
}

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder().join(target.name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

fn run(target: &Target) -> Result<(), String> {
    let corpus = corpus(target);
    for input in &corpus {
        feed(target, input)?;
    }
    let begun = Instant::now();
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    for _ in 0..INPUTS {
        if begun.elapsed() > PATIENCE {
            break;
        }
        feed(target, &chance.input(&corpus))?;
    }
    Ok(())
}

fn feed(target: &Target, input: &[u8]) -> Result<(), String> {
    let clock = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let begun = clock();
    let shown = || format!("{}: {}", target.name, input.escape_ascii());
    catch_unwind(AssertUnwindSafe(|| (target.feed)(input))).map_err(|_| shown())?;
    let cost = clock() - begun;
    if cost > COST { Err(format!("{cost:?} for {}", shown())) } else { Ok(()) }
}

/// Numbers by chance, the same at each run (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 20).unwrap() % limit.max(1)
    }

    /// Something of the corpus, changed at a few places.
    fn input(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        const PIECES: [&[u8]; 12] = [
            b"18446744073709551615",
            b"-1",
            b"0",
            b"1e309",
            b"\0",
            b"\n",
            b"\"",
            b"\\",
            b"[[[[",
            b"null",
            b"\xff\xfe",
            b",,==",
        ];
        let mut input = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(6) {
            let at = self.below(input.len() + 1);
            let end = at + self.below(input.len() - at + 1).min(64);
            match self.below(6) {
                0 if at < input.len() => input[at] ^= 1 << self.below(8),
                1 if at < input.len() => input[at] = u8::try_from(self.below(256)).unwrap(),
                2 => drop(input.drain(at..end)),
                3 => {
                    let again = input[at..end].to_vec();
                    input.splice(at..at, again);
                }
                4 => {
                    input.splice(at..end, PIECES[self.below(PIECES.len())].iter().copied());
                }
                _ => {
                    let other = &corpus[self.below(corpus.len())];
                    let from = self.below(other.len() + 1);
                    input.truncate(at);
                    input.extend_from_slice(&other[from..]);
                }
            }
        }
        input.truncate(LENGTH);
        input
    }
}
