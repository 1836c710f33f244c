//! Broken files, full disks, folders that cannot be used.

use super::*;

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn broken_content_is_deleted_when_it_is_read() {
    let dir = TempDir::new().unwrap();
    let mut tier = Opened::new(config(dir.path()));
    let block = block(1, 1000);
    assert!(tier.write(&block));
    let path = path(dir.path(), OURS, block.0.hash);
    let last = path.metadata().unwrap().len() as usize - 1;
    for (round, at) in [last, last - 999, 0, 40].into_iter().enumerate() {
        flip(&path, at);
        assert_eq!(tier.read(block.0.hash), None, "byte {at}");
        assert!(!path.exists());
        let stats = tier.tier.stats();
        assert_eq!((stats.corrupt, stats.entries, stats.bytes), (round as u64 + 1, 0, 0));
        assert!(tier.write(&block), "it can be stored again");
        assert_eq!(tier.read(block.0.hash).as_ref(), Some(&block.1));
    }
}

#[test]
fn another_blocks_file_is_not_served() {
    let dir = TempDir::new().unwrap();
    let mut tier = Opened::new(config(dir.path()));
    let [one, two] = [block(1, 1000), block(2, 1000)];
    assert!(tier.write(&one) && tier.write(&two));
    fs::copy(path(dir.path(), OURS, one.0.hash), path(dir.path(), OURS, two.0.hash)).unwrap();
    assert_eq!(tier.read(two.0.hash), None);
    assert_eq!(tier.read(one.0.hash), Some(one.1));
    assert_eq!(tier.tier.stats().corrupt, 1);
}

#[test]
fn a_start_deletes_what_is_broken_or_unfinished() {
    let dir = TempDir::new().unwrap();
    let mut tier = Opened::new(config(dir.path()));
    let blocks: Vec<_> = (0..5).map(|number| block(number, 1000)).collect();
    for block in &blocks {
        assert!(tier.write(block));
    }
    drop(tier);
    let of = |number: usize| path(dir.path(), OURS, blocks[number].0.hash);
    flip(&of(0), 50);
    File::options().write(true).open(of(1)).unwrap().set_len(500).unwrap();
    fs::write(of(2), "").unwrap();
    fs::copy(of(3), of(3).with_extension("tmp")).unwrap();
    fs::copy(of(3), of(3).with_file_name(format!("{}.kv", BlockHash::root(None)))).unwrap();
    fs::copy(of(3), of(3).with_file_name("short.kv")).unwrap();

    let mut tier = Opened::new(config(dir.path()));
    let mut found: Vec<_> = tier.found().into_iter().map(|found| found.entry.tokens[0]).collect();
    found.sort_unstable();
    assert_eq!(found, [3, 4]);
    let stats = tier.tier.stats();
    assert_eq!((stats.entries, stats.corrupt, stats.errors), (2, 3, 0));
    assert_eq!(stats.bytes, size(dir.path()));
    assert_eq!(files(dir.path()).len(), 2);
    assert_eq!(tier.read(blocks[3].0.hash).as_ref(), Some(&blocks[3].1));
}

#[test]
fn two_tiers_cannot_have_one_folder() {
    let dir = TempDir::new().unwrap();
    let first = Opened::new(config(dir.path()));
    let error = SsdTier::open(config(dir.path()), || {}).unwrap_err();
    assert!(matches!(error, SsdError::InUse { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("0a is in use") && text.contains("--ssd-cache-dir"), "{text}");
    let other = SsdTier::open(SsdConfig { fingerprint: "0b".into(), ..config(dir.path()) }, || {});
    assert!(other.is_ok(), "another model's folder is another folder");
    drop(first);
    Opened::new(config(dir.path()));
}

#[test]
fn folders_that_cannot_be_used() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = SsdTier::open(config(&file), || {}).unwrap_err();
    assert!(matches!(error, SsdError::Folder { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(file.to_str().unwrap()) && text.contains("--ssd-cache-dir"), "{text}");
    for fingerprint in ["", "..", "a/b", "a b", &"a".repeat(129)] {
        let config = SsdConfig { fingerprint: fingerprint.into(), ..config(dir.path()) };
        let error = SsdTier::open(config, || {}).unwrap_err();
        assert!(matches!(error, SsdError::Fingerprint(_)), "{error}");
    }
}

#[test]
fn a_write_that_fails_costs_one_block() {
    let dir = TempDir::new().unwrap();
    let mut tier = Opened::new(config(dir.path()));
    let bad = block(1, 1000);
    let good = (2..).map(|number| block(number, 1000)).find(|good| good.0.hash.0[0] != bad.0.hash.0[0]).unwrap();
    let fan = path(dir.path(), OURS, bad.0.hash).parent().unwrap().to_owned();
    fs::write(&fan, "a file where a folder should be").unwrap();
    assert!(!tier.write(&bad));
    assert_eq!((tier.tier.stats().errors, tier.tier.stats().entries), (1, 0));
    assert!(tier.write(&good));
    assert_eq!(tier.read(good.0.hash).as_ref(), Some(&good.1));

    fs::remove_file(fan).unwrap();
    assert!(tier.write(&bad));
    assert_eq!(tier.read(bad.0.hash), Some(bad.1));
}

/// A device that is always full, where there is one.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_costs_one_block() {
    let dir = TempDir::new().unwrap();
    let mut tier = Opened::new(config(dir.path()));
    let bad = block(1, 1000);
    let path = path(dir.path(), OURS, bad.0.hash);
    fs::create_dir(path.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/full", path.with_extension("tmp")).unwrap();
    assert!(!tier.write(&bad));
    assert_eq!(tier.tier.stats().errors, 1);
    assert_eq!(files(dir.path()), [] as [PathBuf; 0], "nothing is left of it");
    assert!(tier.write(&bad), "and when there is room again it is stored");
}

#[test]
fn a_folder_deleted_meanwhile_is_made_again() {
    let dir = TempDir::new().unwrap();
    let mut tier = Opened::new(config(dir.path()));
    let [one, two] = [block(1, 1000), block(2, 1000)];
    assert!(tier.write(&one));
    fs::remove_dir_all(dir.path()).unwrap();
    assert_eq!(tier.read(one.0.hash), None);
    assert!(tier.write(&two));
    assert_eq!(tier.read(two.0.hash), Some(two.1));
    assert_eq!(tier.tier.stats().corrupt, 0);
}

#[test]
fn a_block_under_a_false_name_is_not_stored() {
    let dir = TempDir::new().unwrap();
    let mut tier = Opened::new(config(dir.path()));
    let (entry, groups) = block(1, 1000);
    assert!(!tier.write(&(SsdEntry { tokens: vec![8], ..entry }, groups)));
    assert_eq!((tier.tier.stats().errors, files(dir.path()).len()), (1, 0));
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_look() {
    use std::os::unix::fs::PermissionsExt;

    let dir = TempDir::new().unwrap();
    let deep = dir.path().join("made/for/us");
    let mut tier = Opened::new(config(&deep));
    let (entry, groups) = block(1, 1000);
    let hash = entry.hash;
    assert!(tier.write(&(entry, groups)));
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let file = path(&deep, OURS, hash);
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(&deep.join(OURS).join("lock")), 0o600);
    for folder in [file.parent().unwrap(), &deep.join(OURS), &deep, &dir.path().join("made")] {
        assert_eq!(mode(folder), 0o700, "{}", folder.display());
    }
}
