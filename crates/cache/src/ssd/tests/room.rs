//! The cap, and what goes to keep it.

use super::*;

/// Bytes of a file of a [`block`] of 1000 bytes.
fn unit() -> u64 {
    let dir = TempDir::new().unwrap();
    assert!(Opened::new(config(dir.path())).write(&block(0, 1000)));
    size(dir.path())
}

fn set_used(path: &Path, seconds_ago: u64) {
    let time = SystemTime::now() - Duration::from_secs(seconds_ago);
    File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn the_cap_holds_and_the_longest_unused_goes() {
    let dir = TempDir::new().unwrap();
    let max_bytes = 4 * unit() + 10;
    let mut tier = Opened::new(SsdConfig { max_bytes, ..config(dir.path()) });
    let blocks: Vec<_> = (0..20).map(|number| block(number, 1000)).collect();
    let favourite = blocks[0].0.hash;
    for block in &blocks {
        assert!(tier.write(block));
        assert!(size(dir.path()) <= max_bytes);
        assert_eq!(size(dir.path()), tier.tier.stats().bytes);
        tier.tier.touch(favourite);
    }
    assert_eq!((tier.tier.stats().entries, tier.tier.stats().evicted), (4, 16));
    for (number, (entry, groups)) in blocks.into_iter().enumerate() {
        let kept = number == 0 || number >= 17;
        assert_eq!(tier.told.contains(&SsdEvent::Gone(entry.hash)), !kept, "block {number}");
        assert_eq!(tier.read(entry.hash), kept.then_some(groups), "block {number}");
    }
}

#[test]
fn a_read_is_a_use() {
    let dir = TempDir::new().unwrap();
    let mut tier = Opened::new(SsdConfig { max_bytes: 2 * unit(), ..config(dir.path()) });
    let [first, second, third] = [1, 2, 3].map(|number| block(number, 1000));
    assert!(tier.write(&first) && tier.write(&second));
    assert!(tier.read(first.0.hash).is_some());
    assert!(tier.write(&third));
    assert!(tier.told.contains(&SsdEvent::Gone(second.0.hash)));
    assert!(tier.read(first.0.hash).is_some());
}

#[test]
fn the_end_of_a_prefix_goes_before_its_beginning() {
    let dir = TempDir::new().unwrap();
    let mut tier = Opened::new(SsdConfig { max_bytes: 3 * unit(), ..config(dir.path()) });
    let first = block(1, 1000);
    let second = continuing(first.0.hash, 2, 1000);
    let third = continuing(second.0.hash, 3, 1000);
    for block in [&first, &second, &third, &block(4, 1000), &block(5, 1000)] {
        assert!(tier.write(block));
    }
    let gone: Vec<_> = tier.told.iter().filter(|event| matches!(event, SsdEvent::Gone(_))).collect();
    assert_eq!(gone, [&SsdEvent::Gone(third.0.hash), &SsdEvent::Gone(second.0.hash)]);
    drop(tier);

    // What continues what is learnt from the files after a restart.
    let mut tier = Opened::new(SsdConfig { max_bytes: 3 * unit(), ..config(dir.path()) });
    assert!(tier.write(&continuing(block(4, 1000).0.hash, 6, 1000)), "makes block 1 go");
    assert!(tier.write(&block(7, 1000)), "makes block 6 go, though block 4 is older");
    let gone: Vec<_> = tier.told.iter().filter(|event| matches!(event, SsdEvent::Gone(_))).collect();
    let sixth = continuing(block(4, 1000).0.hash, 6, 1000).0.hash;
    assert_eq!(gone, [&SsdEvent::Gone(first.0.hash), &SsdEvent::Gone(sixth)]);
}

#[test]
fn larger_than_the_cap() {
    let dir = TempDir::new().unwrap();
    let mut tier = Opened::new(SsdConfig { max_bytes: unit(), ..config(dir.path()) });
    assert!(tier.write(&block(1, 1000)));
    assert!(!tier.write(&block(2, 1001)));
    assert_eq!((tier.tier.stats().dropped, tier.tier.stats().evicted), (1, 0), "and nothing went for it");
}

#[test]
fn last_use_survives_a_restart_and_a_smaller_cap_is_kept_at_once() {
    let dir = TempDir::new().unwrap();
    let blocks: Vec<_> = (0..5).map(|number| block(number, 1000)).collect();
    let mut tier = Opened::new(config(dir.path()));
    for (block, age) in blocks.iter().zip([500, 100, 400, 200, 300]) {
        assert!(tier.write(block));
        set_used(&path(dir.path(), OURS, block.0.hash), age);
    }
    drop(tier);
    // Renewed by a use after more than a minute.
    let mut tier = Opened::new(config(dir.path()));
    assert!(tier.read(blocks[2].0.hash).is_some());
    drop(tier);

    let max_bytes = 3 * unit();
    let tier = Opened::new(SsdConfig { max_bytes, ..config(dir.path()) });
    let mut kept: Vec<_> = tier.found().into_iter().map(|found| found.entry.tokens[0]).collect();
    kept.sort_unstable();
    assert_eq!(kept, [1, 2, 3]);
    assert!(size(dir.path()) <= max_bytes);
    assert_eq!(tier.tier.stats().bytes, size(dir.path()));
}

#[test]
fn other_models_count_and_go_by_age() {
    let dir = TempDir::new().unwrap();
    let theirs = SsdConfig { fingerprint: "0b".into(), ..config(dir.path()) };
    let mut tier = Opened::new(theirs.clone());
    let [old, young] = [block(1, 1000), block(2, 1000)];
    assert!(tier.write(&old) && tier.write(&young));
    set_used(&path(dir.path(), "0b", old.0.hash), 1000);
    set_used(&path(dir.path(), "0b", young.0.hash), 10);
    // Something that is not ours, however large and old.
    fs::create_dir_all(dir.path().join("photos/aa")).unwrap();
    fs::write(dir.path().join("photos/aa/me.kv"), vec![0; 10_000]).unwrap();
    fs::write(dir.path().join("photos/notes.txt"), "mine").unwrap();

    // While their tier is open their files are not ours to count or delete.
    let max_bytes = 3 * unit();
    let ours = SsdConfig { max_bytes, ..config(dir.path()) };
    let mut tier_of_ours = Opened::new(ours.clone());
    let [first, second, third] = [3, 4, 5].map(|number| block(number, 1000));
    assert!(tier_of_ours.write(&first));
    set_used(&path(dir.path(), OURS, first.0.hash), 500);
    assert_eq!(tier_of_ours.tier.stats().bytes, unit());
    drop((tier, tier_of_ours));

    let mut tier = Opened::new(ours);
    assert_eq!((tier.tier.stats().entries, tier.tier.stats().bytes), (1, 3 * unit()));
    assert!(tier.write(&second));
    assert!(!path(dir.path(), "0b", old.0.hash).exists(), "1000 s old");
    assert!(tier.write(&third));
    assert!(!path(dir.path(), OURS, first.0.hash).exists(), "500 s old");
    assert!(path(dir.path(), "0b", young.0.hash).exists());
    assert_eq!(tier.tier.stats().evicted, 2);

    // Opened since the start: let go of, and not deleted.
    let tier_of_theirs = Opened::new(theirs);
    assert!(tier.write(&block(6, 1000)));
    assert!(path(dir.path(), "0b", young.0.hash).exists());
    assert_eq!(tier.tier.stats().bytes, 3 * unit());
    assert_eq!(tier_of_theirs.found().len(), 1);
    assert!(dir.path().join("photos/aa/me.kv").exists() && dir.path().join("photos/notes.txt").exists());
}
