//! Where the sound of an MP4 file begins (ISO/IEC 14496-12, 8.6.6).
//!
//! An AAC encoder puts one or two packets in front; the track's edit list says where to begin instead, and `symphonia` doesn't
//! follow it. Times of words would come out some 20 to 50 ms late.

use std::{
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
};

use super::source::Source;

/// Seconds to be left out at the beginning of each track, by the track's number. Empty if it isn't MP4, or makes no sense: then
/// the reader has something to say about it.
pub(super) fn leads(source: &mut Source) -> io::Result<Vec<(u32, f64)>> {
    let mut leads = Vec::new();
    let whole = 0..source.length();
    let Some(movie) = find(source, whole.clone(), b"ftyp")?.and(find(source, whole, b"moov")?) else {
        return Ok(leads);
    };
    for track in children(source, movie)?.into_iter().filter(|(kind, _)| kind == b"trak").map(|(_, inside)| inside) {
        let number = match find(source, track.clone(), b"tkhd")? {
            Some(header) => field(source, &header, [12, 20])?,
            None => None,
        };
        let scale = match descend(source, track.clone(), [b"mdia", b"mdhd"])? {
            Some(header) => field(source, &header, [12, 20])?,
            None => None,
        };
        let begin = match descend(source, track, [b"edts", b"elst"])? {
            Some(edits) => first_edit(source, &edits)?,
            None => None,
        };
        if let (Some(number), Some(scale @ 1..), Some(begin)) = (number, scale, begin) {
            leads.push((number, begin as f64 / f64::from(scale)));
        }
    }
    source.rewind()?;
    Ok(leads)
}

type Boxed = ([u8; 4], Range<u64>);

/// The boxes that lie in a stretch of the file, and what is in them.
fn children(source: &mut Source, mut within: Range<u64>) -> io::Result<Vec<Boxed>> {
    /// More than any track has, and any file but a fragmented one, whose first few hold what is looked for.
    const MOST: usize = 64;

    let mut found = Vec::new();
    while found.len() < MOST && within.end.saturating_sub(within.start) >= 8 {
        let Some(head) = read::<8>(source, within.start)? else { break };
        let [a, b, c, d, kind @ ..] = head;
        let (skip, length) = match u32::from_be_bytes([a, b, c, d]) {
            0 => (8, within.end - within.start),
            1 => match read::<8>(source, within.start + 8)? {
                Some(long) => (16, u64::from_be_bytes(long)),
                None => break,
            },
            length => (8, length.into()),
        };
        let end = within.start.checked_add(length).filter(|&end| length >= skip && end <= within.end);
        let Some(end) = end else { break };
        found.push((kind, within.start + skip..end));
        within.start = end;
    }
    Ok(found)
}

fn find(source: &mut Source, within: Range<u64>, kind: &[u8; 4]) -> io::Result<Option<Range<u64>>> {
    Ok(children(source, within)?.into_iter().find(|(there, _)| there == kind).map(|(_, inside)| inside))
}

fn descend(source: &mut Source, within: Range<u64>, kinds: [&[u8; 4]; 2]) -> io::Result<Option<Range<u64>>> {
    match find(source, within, kinds[0])? {
        Some(inside) => find(source, inside, kinds[1]),
        None => Ok(None),
    }
}

/// A number that lies at one place in version 0 of a box and at another in version 1.
fn field(source: &mut Source, inside: &Range<u64>, places: [u64; 2]) -> io::Result<Option<u32>> {
    let Some([version]) = read(source, inside.start)? else { return Ok(None) };
    let Some(&place) = places.get(usize::from(version)) else { return Ok(None) };
    let at = inside.start + place;
    if at + 4 > inside.end { Ok(None) } else { Ok(read(source, at)?.map(u32::from_be_bytes)) }
}

/// The time in the track at which its first edit begins; edits without one (−1) are pauses.
fn first_edit(source: &mut Source, inside: &Range<u64>) -> io::Result<Option<u64>> {
    let Some([version, ..]) = read::<8>(source, inside.start)? else { return Ok(None) };
    let long = version == 1;
    let (step, time) = if long { (20, 8) } else { (12, 4) };
    // A pause and what follows it: nobody writes more before the sound.
    for at in [inside.start + 8, inside.start + 8 + step].into_iter().filter(|at| at + step <= inside.end) {
        let begin = if long {
            read(source, at + time)?.map(i64::from_be_bytes)
        } else {
            read(source, at + time)?.map(|bytes| i32::from_be_bytes(bytes).into())
        };
        if let Some(begin) = begin.and_then(|begin| u64::try_from(begin).ok()) {
            return Ok(Some(begin));
        }
    }
    Ok(None)
}

/// None behind the end.
fn read<const N: usize>(source: &mut Source, at: u64) -> io::Result<Option<[u8; N]>> {
    source.seek(SeekFrom::Start(at))?;
    let mut bytes = [0; N];
    match source.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}
