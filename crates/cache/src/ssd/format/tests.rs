use proptest::prelude::*;

use super::*;

fn identity() -> Identity {
    Identity { fingerprint: "0f1e".into(), dtype: KvDtype::F32 }
}

fn entry(tokens: Vec<TokenId>) -> SsdEntry {
    let parent = BlockHash::root(Some("a"));
    SsdEntry { hash: parent.extend(&tokens), parent, tokens, media: vec![] }
}

fn file(entry: &SsdEntry, groups: &[Option<Vec<u8>>], quantize: bool) -> Vec<u8> {
    let content = encode(&identity(), entry, groups, quantize);
    let len = content.len();
    let file = [content.header, content.payloads.concat()].concat();
    assert_eq!(file.len() as u64, len);
    file
}

type Content = (SsdEntry, Vec<bool>, Vec<Option<Vec<u8>>>);

fn read(mut file: &[u8], identity: &Identity) -> Result<Content, Fault> {
    let len = file.len() as u64;
    let header = read_header(&mut file, len, identity)?;
    let groups = read_groups(&mut file, &header, identity.dtype)?;
    Ok((header.entry.clone(), header.present(), groups))
}

fn assert_corrupt(file: &[u8], what: &str) {
    match read(file, &identity()) {
        Err(Fault::Corrupt(_)) => {}
        other => panic!("{what}: {other:?}"),
    }
}

fn small() -> (SsdEntry, Vec<Option<Vec<u8>>>) {
    (entry(vec![1, 2, 3]), vec![Some((0..40).collect()), None, Some(vec![]), Some(vec![9; 12])])
}

/// Like [`small`], with media among the tokens.
fn with_media() -> (SsdEntry, Vec<Option<Vec<u8>>>) {
    let (text, groups) = small();
    let mark = |start, len, key| MediaMark { start, len, key: ContentHash([key; 16]), first: 1 << 40 };
    let media = vec![mark(0, 1, 1), mark(1, 2, 2)];
    (SsdEntry { hash: text.parent.extend_with_media(&text.tokens, &media), media, ..text }, groups)
}

fn version(file: &[u8]) -> u32 {
    u32::from_le_bytes(*file[MAGIC.len()..].first_chunk().unwrap())
}

#[test]
fn files_of_text_are_those_of_version_1() {
    let ((text, groups), (shown, _)) = (small(), with_media());
    let files = [file(&text, &groups, false), file(&shown, &groups, false)];
    assert_eq!(files.each_ref().map(|file| version(file)), [1, 2]);
    // What the program wrote that knew no media.
    assert_eq!((files[0].len(), crc32fast::hash(&files[0])), (212, 950775087));
}

#[test]
fn what_is_written_is_read() {
    let (entry, groups) = small();
    let got = read(&file(&entry, &groups, false), &identity()).unwrap();
    assert_eq!(got, (entry, vec![true, false, true, true], groups));
    let (entry, groups) = with_media();
    let got = read(&file(&entry, &groups, false), &identity()).unwrap();
    assert_eq!(got, (entry, vec![true, false, true, true], groups));
    // Features: of media alone.
    let (mut entry, groups) = with_media();
    (entry.tokens, entry.hash) = (vec![], entry.parent.extend_with_media(&[], &entry.media));
    assert_eq!(read(&file(&entry, &groups, false), &identity()).unwrap().0, entry);
    let nothing = self::entry(vec![]);
    assert_eq!(read(&file(&nothing, &[], false), &identity()).unwrap(), (nothing, vec![], vec![]));
}

#[test]
fn every_flipped_bit_is_found() {
    for ((entry, groups), quantize) in [(small(), false), (small(), true), (with_media(), false)] {
        let whole = file(&entry, &groups, quantize);
        for bit in 0..8 * whole.len() {
            let mut file = whole.clone();
            file[bit / 8] ^= 1 << (bit % 8);
            assert_corrupt(&file, &format!("bit {bit}"));
        }
    }
}

#[test]
fn every_other_length_is_found() {
    for (entry, groups) in [small(), with_media()] {
        let whole = file(&entry, &groups, false);
        for len in 0..whole.len() {
            assert_corrupt(&whole[..len], &format!("cut to {len}"));
        }
        for more in [&[0][..], &[0; 4096], &whole] {
            assert_corrupt(&[&whole, more].concat(), "appended to");
        }
    }
}

#[test]
fn blocks_of_other_models_are_refused() {
    let (entry, groups) = small();
    let file = file(&entry, &groups, false);
    for other in [
        Identity { fingerprint: "0f1f".into(), ..identity() },
        Identity { fingerprint: "0f1e0".into(), ..identity() },
        Identity { dtype: KvDtype::F16, ..identity() },
    ] {
        assert!(matches!(read(&file, &other), Err(Fault::Corrupt("it is of another model"))), "{other:?}");
    }
}

/// Headers with a good checksum that we never write: the checks behind the checksum.
#[test]
fn lying_headers_are_refused() {
    let good = Stored { encoding: Encoding::Raw, raw_len: 4, stored_len: 4, checksum: crc32fast::hash(&[7; 4]) };
    let (entry, _) = small();
    let stranger = SsdEntry { tokens: vec![1, 2], ..entry.clone() };
    let mark = |start, len, first| MediaMark { start, len, key: ContentHash([1; 16]), first };
    let shows = |mark| SsdEntry { media: vec![mark], ..entry.clone() };
    let (other_picture, beyond, too_many) =
        (shows(mark(0, 1, 0)), shows(mark(usize::MAX, 1, 0)), shows(mark(0, 1, usize::MAX)));
    let int8 = Encoding::Int8;
    let cases: [(&str, &SsdEntry, Vec<Stored>); 9] = [
        ("stored length", &entry, vec![Stored { stored_len: u64::MAX, ..good }]),
        ("sum of lengths", &entry, vec![Stored { stored_len: u64::MAX, ..good }, good]),
        ("raw length", &entry, vec![Stored { raw_len: 8, ..good }]),
        ("raw length in 8 bits", &entry, vec![Stored { encoding: int8, raw_len: 1 << 60, ..good }]),
        ("hash", &stranger, vec![good]),
        ("hash of other media", &other_picture, vec![good]),
        ("a mark beyond all tokens", &beyond, vec![good]),
        ("a vector beyond all numbers", &too_many, vec![good]),
        ("bytes of what is absent", &entry, vec![Stored { encoding: Encoding::Absent, ..good }, good]),
    ];
    for (name, entry, groups) in cases {
        let mut file = encode_header(&identity(), entry, &groups);
        file.extend([7; 4]);
        assert_corrupt(&file, name);
    }
    let mut file = encode_header(&identity(), &entry, &[good]);
    file.extend([7; 4]);
    assert!(read(&file, &identity()).is_ok(), "the cases start from a good one");
}

#[derive(Debug, Clone)]
enum Harm {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Append(Vec<u8>),
    Overwrite(prop::sample::Index, Vec<u8>),
}

impl Harm {
    fn apply(self, file: &mut Vec<u8>) {
        match self {
            Self::Flip(at, mask) => *at.get_mut(file) ^= mask,
            Self::Cut(at) => file.truncate(at.index(file.len())),
            Self::Append(bytes) => file.extend(bytes),
            Self::Overwrite(at, bytes) => {
                let at = at.index(file.len());
                file.iter_mut().skip(at).zip(bytes).for_each(|(byte, new)| *byte = new);
            }
        }
    }
}

fn harm() -> impl Strategy<Value = Harm> {
    let place = any::<prop::sample::Index>;
    prop_oneof![
        (place(), 1u8..).prop_map(|(at, mask)| Harm::Flip(at, mask)),
        place().prop_map(Harm::Cut),
        prop::collection::vec(any::<u8>(), 1..50).prop_map(Harm::Append),
        (place(), prop::collection::vec(any::<u8>(), 1..50)).prop_map(|(at, bytes)| Harm::Overwrite(at, bytes)),
        (place(), 1usize..500).prop_map(|(at, count)| Harm::Overwrite(at, vec![0; count])),
    ]
}

proptest! {
    #[test]
    fn harmed_files_give_nothing_or_what_was_written(
        tokens in prop::collection::vec(any::<u32>(), 0..40),
        groups in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..300)), 0..5),
        harms in prop::collection::vec(harm(), 1..4),
        quantize: bool,
        shown in prop::option::of((0usize..40, 1usize..40, any::<[u8; 16]>())),
    ) {
        let mut entry = entry(tokens);
        entry.media.extend(shown.map(|(start, len, key)| MediaMark { start, len, key: ContentHash(key), first: 3 }));
        entry.hash = entry.parent.extend_with_media(&entry.tokens, &entry.media);
        let whole = file(&entry, &groups, quantize);
        let written = read(&whole, &identity()).unwrap();
        prop_assert_eq!(&written.0, &entry);
        if !quantize {
            prop_assert_eq!(&written.2, &groups);
        }
        let mut harmed = whole.clone();
        for harm in harms {
            if !harmed.is_empty() {
                harm.apply(&mut harmed);
            }
        }
        match read(&harmed, &identity()) {
            Ok(got) => prop_assert_eq!(got, written),
            Err(Fault::Corrupt(_)) => prop_assert_ne!(harmed, whole),
            Err(Fault::Io(error)) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn noise_is_no_block(noise in prop::collection::vec(any::<u8>(), 0..400)) {
        assert_corrupt(&noise, "noise");
        for version in [TEXT, MEDIA] {
            assert_corrupt(&[&MAGIC[..], &version.to_le_bytes(), &noise].concat(), "noise after a good start");
        }
    }
}
