//! Tokens of chunks that overlap, put together again.

use std::time::Duration;

use vllm_platform::HeardToken;

/// Tokens of two chunks that are further apart are not the same sound.
const SAME: Duration = Duration::from_millis(500);

/// Goes on with what was heard so far by what was heard in the next chunk, which begins at `begin`; times are the sound's.
///
/// At the edge of a chunk a model hears half of what is said. Where both heard the same run of tokens, the one is followed up to
/// the middle of the longest run, the other from there; where they agree on nothing, up to the middle of the overlap.
pub(super) fn join(heard: &mut Vec<HeardToken>, next: Vec<HeardToken>, begin: Duration, end: Duration) {
    let from = heard.partition_point(|token| token.start < begin);
    let to = next.partition_point(|token| token.start < end);
    let (first, second) = match longest_run(&heard[from..], &next[..to]) {
        Some((first, second, len)) => (from + first + len / 2, second + len / 2),
        None => {
            let middle = (begin + end.max(begin)) / 2;
            let before = |tokens: &[HeardToken]| tokens.partition_point(|token| token.start < middle);
            (before(heard), before(&next))
        }
    };
    heard.truncate(first);
    heard.extend_from_slice(&next[second..]);
}

/// The longest run of tokens that are the same in both at about the same times: where it begins in the one and in the other, and
/// its length.
fn longest_run(first: &[HeardToken], second: &[HeardToken]) -> Option<(usize, usize, usize)> {
    let same =
        |one: &HeardToken, other: &HeardToken| one.token == other.token && one.start.abs_diff(other.start) < SAME;
    let mut longest: Option<(usize, usize, usize)> = None;
    // Lengths of the runs that end with the token before in `first`, by where they end in `second`.
    let mut before = vec![0; second.len() + 1];
    for (i, one) in first.iter().enumerate() {
        let mut now = vec![0; second.len() + 1];
        for (j, _) in second.iter().enumerate().filter(|(_, other)| same(one, other)) {
            let len = before[j] + 1;
            now[j + 1] = len;
            if longest.is_none_or(|(.., most)| len > most) {
                longest = Some((i + 1 - len, j + 1 - len, len));
            }
        }
        before = now;
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens of 0.1 s each: (token, tenths of a second).
    fn tokens(heard: &[(u32, u64)]) -> Vec<HeardToken> {
        let token = |&(token, tenths): &(u32, u64)| HeardToken {
            token,
            start: Duration::from_millis(tenths * 100),
            duration: Duration::from_millis(100),
            probability: 1.0,
        };
        heard.iter().map(token).collect()
    }

    #[test]
    fn chunks_are_joined_where_they_agree() {
        // The overlap is from 6 s to 10 s. (name, first chunk, second chunk, both)
        type Heard<'a> = &'a [(u32, u64)];
        let cases: [(&str, Heard<'_>, Heard<'_>, Heard<'_>); 6] = [
            ("nothing in the second", &[(1, 10), (2, 70)], &[], &[(1, 10), (2, 70)]),
            ("nothing in the first", &[], &[(3, 70), (4, 120)], &[(4, 120)]),
            (
                "half a word at each edge",
                &[(1, 10), (2, 65), (3, 70), (4, 75), (5, 80), (9, 99)],
                &[(8, 60), (3, 70), (4, 75), (5, 81), (6, 95), (7, 120)],
                &[(1, 10), (2, 65), (3, 70), (4, 75), (5, 81), (6, 95), (7, 120)],
            ),
            (
                "the longest run counts",
                &[(1, 61), (2, 70), (3, 75), (4, 80)],
                &[(1, 61), (9, 63), (2, 70), (3, 75), (4, 80)],
                &[(1, 61), (2, 70), (3, 75), (4, 80)],
            ),
            (
                "the same word later is another",
                &[(1, 62), (2, 70)],
                &[(1, 90), (3, 110)],
                &[(1, 62), (2, 70), (1, 90), (3, 110)],
            ),
            ("they agree on nothing", &[(1, 70), (2, 90)], &[(3, 71), (4, 91)], &[(1, 70), (4, 91)]),
        ];
        for (name, first, second, wanted) in cases {
            let mut heard = tokens(first);
            join(&mut heard, tokens(second), Duration::from_secs(6), Duration::from_secs(10));
            assert_eq!(heard, tokens(wanted), "{name}");
        }
    }
}
