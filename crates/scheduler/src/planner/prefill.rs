//! How a step's tokens are shared out among prompts.

/// Shares out `budget` tokens among prompts with `pending` tokens left each, the one whose turn it is first; none gets
/// more than `cap`.
///
/// Half of the budget is the first one's, so that a long prompt gets on whatever comes after it. The other half goes to
/// whoever has least left, so that a short prompt never waits for a long one; of prompts that are equally long the
/// first is served first, which is better for all of them than to be served by turns. What is left over goes to the
/// first.
pub(super) fn share_out(budget: usize, cap: usize, pending: &[usize]) -> Vec<usize> {
    let mut shares = vec![0; pending.len()];
    let Some(&first) = pending.first() else { return shares };
    shares[0] = first.min(cap).min(budget.div_ceil(2));
    let mut rest = budget - shares[0];
    let mut shortest: Vec<usize> = (0..pending.len()).collect();
    shortest.sort_by_key(|&i| pending[i]);
    for i in shortest {
        let more = (pending[i].min(cap) - shares[i]).min(rest);
        shares[i] += more;
        rest -= more;
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_gets_half_and_the_shortest_the_rest() {
        // (name, budget, cap, pending, shares)
        type Case = (&'static str, usize, usize, &'static [usize], &'static [usize]);
        let cases: [Case; 8] = [
            ("nobody", 256, 512, &[], &[]),
            ("alone", 256, 512, &[4000], &[256]),
            ("alone and short", 256, 512, &[40], &[40]),
            ("a short one behind a long one", 256, 512, &[3000, 32], &[224, 32]),
            ("two short ones behind", 256, 512, &[3000, 100, 30], &[128, 98, 30]),
            ("equally long", 256, 512, &[1000, 1000], &[256, 0]),
            ("long behind long", 256, 512, &[500, 1000], &[256, 0]),
            ("capped", 256, 64, &[1000, 1000, 10], &[64, 64, 10]),
        ];
        for (name, budget, cap, pending, wanted) in cases {
            assert_eq!(share_out(budget, cap, pending), wanted, "{name}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_wasted_or_overdrawn(
            budget in 0usize..300, cap in 1usize..300, pending in prop::collection::vec(1usize..500, 1..12)
        ) {
            let shares = share_out(budget, cap, &pending);
            let wanted: usize = pending.iter().map(|&n| n.min(cap)).sum();
            prop_assert_eq!(shares.iter().sum::<usize>(), budget.min(wanted));
            prop_assert!(shares.iter().zip(&pending).all(|(&share, &n)| share <= n.min(cap)));
            prop_assert!(shares[0] >= pending[0].min(cap).min(budget / 2));
        }
    }
}
