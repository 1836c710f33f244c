//! How fast the SSD tier writes and reads: `cargo run --release -p vllm-cache --example ssd_speed -- <folder> [blocks] [quantize]`.
//!
//! Blocks of 700 kB, in a temporary folder inside `<folder>`. What is read was just written: from the system's page
//! cache if there is memory for it.

use std::{
    env,
    error::Error,
    path::Path,
    sync::mpsc::{Receiver, channel},
    time::Instant,
};

use vllm_cache::{BlockHash, SsdConfig, SsdEntry, SsdEvent, SsdTier};
use vllm_platform::KvDtype;

const BYTES: usize = 700_000;
/// Reads under way at once.
const AHEAD: usize = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let folder = arguments.next().ok_or("which folder?")?;
    let blocks: u32 = arguments.next().map_or(Ok(1000), |blocks| blocks.parse())?;
    let quantize = arguments.next().is_some_and(|word| word == "quantize");
    let dir = tempfile::tempdir_in(folder)?;

    let (tier, woken) = open(dir.path(), quantize)?;
    let parent = BlockHash::root(None);
    let entry = |number: u32| SsdEntry { hash: parent.extend(&[number]), parent, tokens: vec![number], media: vec![] };
    let content: Vec<u8> =
        (0..BYTES as u32 / 2).flat_map(|at| (at.wrapping_mul(40503) as u16 & 0x3fff).to_le_bytes()).collect();

    let mut written = 0;
    let mut next = 0;
    let start = Instant::now();
    while written < blocks {
        while next < blocks && tier.write(entry(next), vec![Some(content.clone())]) {
            next += 1;
        }
        woken.recv()?;
        while let Some(event) = tier.poll() {
            written += u32::from(matches!(event, SsdEvent::Written(_)));
        }
    }
    report("written", blocks, start);
    let stats = tier.stats();
    println!("{} bytes a file", stats.written_bytes / stats.written_blocks);
    drop(tier);

    let start = Instant::now();
    let (tier, woken) = open(dir.path(), quantize)?;
    let mut found = 0;
    while found < blocks {
        woken.recv()?;
        while let Some(event) = tier.poll() {
            if let SsdEvent::Found(piece) = event {
                found += piece.len() as u32;
            }
        }
    }
    println!("found {found} blocks in {:.1} ms", start.elapsed().as_secs_f64() * 1e3);

    let start = Instant::now();
    let (mut asked, mut loaded) = (0, 0);
    while loaded < blocks {
        while asked < blocks && asked - loaded < AHEAD as u32 {
            tier.read(entry(asked).hash);
            asked += 1;
        }
        woken.recv()?;
        while let Some(event) = tier.poll() {
            loaded += u32::from(matches!(event, SsdEvent::Loaded { .. }));
        }
    }
    report("read", blocks, start);
    Ok(())
}

fn open(dir: &Path, quantize: bool) -> Result<(SsdTier, Receiver<()>), Box<dyn Error>> {
    let config = SsdConfig {
        dir: dir.into(),
        max_bytes: u64::MAX,
        fingerprint: "speed".into(),
        dtype: KvDtype::F16,
        quantize,
        queue_bytes: SsdConfig::QUEUE_BYTES,
    };
    let (wake, woken) = channel();
    Ok((
        SsdTier::open(config, move || {
            let _ = wake.send(());
        })?,
        woken,
    ))
}

fn report(what: &str, blocks: u32, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{what}: {:.0} MB/s, {:.2} ms a block",
        f64::from(blocks) * BYTES as f64 / 1e6 / seconds,
        seconds / f64::from(blocks) * 1e3
    );
}
