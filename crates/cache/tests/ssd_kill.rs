//! `kill -9` while blocks are written.

use std::{
    env,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::channel,
    thread,
    time::Duration,
};

use vllm_cache::{BlockHash, SsdConfig, SsdEntry, SsdEvent, SsdTier};
use vllm_platform::KvDtype;

/// Set: this process is the one to be killed, and this is the folder and the round's number.
const VICTIM: &str = "SSD_KILL_VICTIM";
const ROUNDS: u32 = 12;

fn open(dir: PathBuf, wake: impl Fn() + Send + Sync + 'static) -> SsdTier {
    let config = SsdConfig {
        dir,
        max_bytes: 1 << 30,
        fingerprint: "5eed".into(),
        dtype: KvDtype::F16,
        quantize: false,
        queue_bytes: 4 << 20,
    };
    SsdTier::open(config, wake).unwrap()
}

fn block(round: u32, number: u32) -> SsdEntry {
    let (parent, tokens) = (BlockHash::root(None), vec![round, number]);
    SsdEntry { hash: parent.extend(&tokens), parent, tokens, media: vec![] }
}

/// Any block's content can be told from its name.
fn content(hash: BlockHash) -> Vec<Option<Vec<u8>>> {
    let seed = u64::from_le_bytes(*hash.0.first_chunk().unwrap());
    let len = 20_000 + seed % 300_000;
    let bytes = (0..len).map(|at| (seed.wrapping_add(at).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8);
    vec![Some(bytes.collect()), seed.is_multiple_of(3).then(|| vec![seed as u8; 1000])]
}

/// Writes for ever, and says on its standard output what was written.
fn write_for_ever(dir: PathBuf, round: u32) -> ! {
    let (wake, woken) = channel();
    let tier = open(dir, move || {
        let _ = wake.send(());
    });
    let mut number = 0;
    loop {
        let entry = block(round, number);
        let groups = content(entry.hash);
        if tier.write(entry, groups) {
            number += 1;
        } else {
            // The queue is full, as it should be all the time.
            woken.recv().unwrap();
        }
        while let Some(event) = tier.poll() {
            if let SsdEvent::Written(hash) = event {
                println!("\n{hash}");
            }
        }
    }
}

/// The block that a line of the process to be killed speaks of; the test harness has lines of its own there.
fn written(line: &str) -> Option<String> {
    (line.len() == 32 && line.bytes().all(|c| c.is_ascii_hexdigit())).then(|| line.to_owned())
}

/// Lets a process write, and kills it `after` its first block; the blocks that it said were written.
fn kill_a_writer(dir: &Path, round: u32, after: Duration) -> Vec<String> {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["kill_at_any_moment", "--exact", "--nocapture"])
        .env(VICTIM, format!("{round} {}", dir.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let first = lines.find_map(|line| written(&line)).expect("it writes until it is killed");
    // Its pipe is emptied all the time, so that it never waits.
    let rest = thread::spawn(move || lines.filter_map(|line| written(&line)).collect::<Vec<_>>());
    thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    [vec![first], rest.join().unwrap()].concat()
}

/// Reads all that is found and compares it with what it must be; the names of all.
fn check(dir: &Path) -> Vec<String> {
    let (wake, woken) = channel();
    let tier = open(dir.into(), move || {
        let _ = wake.send(());
    });
    let (mut found, mut loaded, mut scanned) = (0, vec![], false);
    while !scanned || loaded.len() < found {
        woken.recv_timeout(Duration::from_secs(10)).expect("every read is answered");
        while let Some(event) = tier.poll() {
            match event {
                SsdEvent::Found(piece) => {
                    found += piece.len();
                    piece.iter().for_each(|block| tier.read(block.entry.hash));
                }
                SsdEvent::ScanDone => scanned = true,
                SsdEvent::Loaded { hash, groups } => {
                    assert!(groups == content(hash), "{hash} holds other bytes than were written");
                    loaded.push(hash.to_string());
                }
                other => panic!("{other:?}"),
            }
        }
    }
    let stats = tier.stats();
    assert_eq!((stats.corrupt, stats.errors, stats.entries), (0, 0, found));
    loaded
}

/// Files that were being written.
fn unfinished(dir: &Path) -> usize {
    let fans = dir.join("5eed").read_dir().unwrap().map(|fan| fan.unwrap().path()).filter(|fan| fan.is_dir());
    let files = fans.flat_map(|fan| fan.read_dir().unwrap().map(|file| file.unwrap().path()));
    files.filter(|file| file.extension().is_some_and(|extension| extension == "tmp")).count()
}

#[test]
fn kill_at_any_moment() {
    if let Ok(victim) = env::var(VICTIM) {
        let (round, dir) = victim.split_once(' ').unwrap();
        write_for_ever(dir.into(), round.parse().unwrap());
    }
    let mut interrupted = 0;
    let mut blocks = 0;
    for round in 0..ROUNDS {
        let dir = tempfile::tempdir().unwrap();
        // Twice on one folder: the second starts from what the first left.
        for half in 0..2 {
            let after = Duration::from_micros(u64::from(2 * round + half).wrapping_mul(7919) % 60_000);
            let said = kill_a_writer(dir.path(), half, after);
            interrupted += unfinished(dir.path());
            let found = check(dir.path());
            assert_eq!(unfinished(dir.path()), 0);
            for hash in &said {
                assert!(found.contains(hash), "round {round}: {hash} was written and is lost");
            }
            blocks += said.len();
        }
    }
    println!("{blocks} blocks written; {interrupted} of {} kills came while a file was being written", 2 * ROUNDS);
    assert!(interrupted > 0, "no kill came while a file was being written: this proved nothing");
}
