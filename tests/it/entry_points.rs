//! Mutations of the corpus, seeded, without a server. `PODIUM_FUZZ_SECONDS` says for how long each entry point is tried.

use std::path::Path;
use std::time::{Duration, Instant};

use podium_tests::Rng;
use podium_tests::entry_points::{ALL, EntryPoint};

/// Tries of an entry point where no time is set.
const CASES: usize = 1_500;
/// Pieces that random bytes seldom hit upon.
const WORDS: [&[u8]; 14] = [
    b"\"",
    b"{",
    b"]",
    b"\\u0000",
    b"\\ud800",
    b"1e400",
    b"-0",
    b"18446744073709551616",
    b"\xff",
    b"\x00",
    b"\"exp\":",
    b"\"alg\":\"none\"",
    b"=",
    b"\n",
];

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(name);
    let files =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

fn mutate(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut data = rng.pick(corpus).clone();
    for _ in 0..=rng.below(6) {
        let at = rng.below(data.len() + 1);
        match rng.below(5) {
            0 if at < data.len() => data[at] = rng.bits().to_le_bytes()[0],
            1 => data.truncate(at),
            2 => {
                let word = *rng.pick(&WORDS);
                data.splice(at..at, word.iter().copied());
            }
            3 => {
                let other = rng.pick(corpus);
                let from = rng.below(other.len() + 1);
                data.splice(at.., other[from..].iter().copied());
            }
            _ => {
                let to = at + rng.below(data.len() - at + 1);
                let copy = data[at..to].to_vec();
                data.splice(at..at, copy);
            }
        }
    }
    data
}

fn seconds() -> Option<Duration> {
    let text = std::env::var("PODIUM_FUZZ_SECONDS").ok()?;
    Some(Duration::from_secs(
        text.parse().expect("PODIUM_FUZZ_SECONDS must be a number"),
    ))
}

fn attempt(name: &str, entry_point: EntryPoint, rng: &mut Rng) -> usize {
    let corpus = corpus(name);
    corpus.iter().for_each(|data| entry_point(data));
    let (begin, limit) = (Instant::now(), seconds());
    let goes_on = |done: usize| limit.map_or(done < CASES, |limit| begin.elapsed() < limit);
    let mut done = 0;
    while goes_on(done) {
        let data = mutate(rng, &corpus);
        let held = std::panic::catch_unwind(|| entry_point(&data));
        assert!(
            held.is_ok(),
            "{name}: {:?} = {:?}",
            data,
            String::from_utf8_lossy(&data)
        );
        done += 1;
    }
    done
}

/// What must hold holds for every mutation.
#[test]
fn mutations_of_the_corpus() {
    let mut rng = Rng::printed();
    for (name, entry_point) in ALL {
        let done = attempt(name, entry_point, &mut rng);
        println!("{name}: {done} inputs");
    }
}
