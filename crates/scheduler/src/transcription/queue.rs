//! Whose window is next.

use crate::{background::Caller, planner::queue::Shares, transcription::TranscriptEvent};

/// What a request had, and whose it is.
#[derive(Debug)]
pub(super) struct Account {
    pub id: u64,
    pub caller: Caller<TranscriptEvent>,
    /// Work done for it, in tokens, and what it was lifted to when it came.
    served: u64,
}

/// A request that is not there any more is out of the queue; until then it is next whenever it has had least.
pub(super) trait Entry {
    fn account(&self) -> &Account;
    fn account_mut(&mut self) -> &mut Account;
    /// How many pieces of it wait for their turn.
    fn waiting(&self) -> usize;
}

/// The requests that have not ended.
#[derive(Debug)]
pub(super) struct Queue<J> {
    pub jobs: Vec<J>,
    shares: Shares,
    next_id: u64,
}

impl<J: Entry> Queue<J> {
    pub fn new() -> Self {
        Self { jobs: Vec::new(), shares: Shares::default(), next_id: 0 }
    }

    /// Takes in what `make` makes of a request.
    pub fn push(&mut self, caller: Caller<TranscriptEvent>, make: impl FnOnce(Account) -> J) {
        // Nobody saves up a claim by coming late: it begins where the least served of its client's are.
        let siblings = self.jobs.iter().map(J::account).filter(|other| other.caller.client == caller.client);
        let served = siblings.map(|other| other.served).min().unwrap_or(0);
        self.shares.arrive(&caller.client);
        self.jobs.push(make(Account { id: self.next_id, caller, served }));
        self.next_id += 1;
    }

    /// Takes out the jobs that `which` accepts.
    pub fn take(&mut self, which: impl Fn(&J) -> bool) -> Vec<J> {
        let taken: Vec<J> = self.jobs.extract_if(.., |job| which(job)).collect();
        taken.iter().for_each(|job| self.shares.leave(&job.account().caller.client));
        taken
    }

    /// Work of so many tokens is done for a job.
    pub fn charge(&mut self, job: usize, tokens: usize) {
        let account = self.jobs[job].account_mut();
        account.served += tokens as u64;
        self.shares.charge(&account.caller.client, tokens);
    }

    /// Which job each of the next pieces is of, at most `room` of them; each counts as work of `cost` tokens from now on.
    pub fn next(&mut self, room: usize, cost: usize) -> Vec<usize> {
        let mut waiting: Vec<usize> = self.jobs.iter().map(J::waiting).collect();
        let mut next = Vec::new();
        while next.len() < room {
            let order = |&job: &usize| {
                let account = self.jobs[job].account();
                (self.shares.served(&account.caller.client), account.served, account.id)
            };
            let Some(job) = (0..waiting.len()).filter(|&job| waiting[job] > 0).min_by_key(order) else { break };
            waiting[job] -= 1;
            self.charge(job, cost);
            next.push(job);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Job(Account, usize);

    impl Entry for Job {
        fn account(&self) -> &Account {
            &self.0
        }

        fn account_mut(&mut self) -> &mut Account {
            &mut self.0
        }

        fn waiting(&self) -> usize {
            self.1
        }
    }

    #[test]
    fn windows_are_shared_by_clients_and_then_by_requests() {
        // (name, (client, windows) of each request, room, whose windows come in each call)
        type Case<'a> = (&'a str, &'a [(Option<&'a str>, usize)], usize, &'a [&'a [usize]]);
        let cases: [Case<'_>; 4] = [
            ("one request", &[(None, 3)], 2, &[&[0, 0], &[0]]),
            ("an hour and a sentence", &[(None, 5), (None, 1)], 3, &[&[0, 1, 0], &[0, 0, 0]]),
            ("more requests than room", &[(None, 1), (None, 1), (None, 1)], 2, &[&[0, 1], &[2]]),
            // The second and third are one client's: together they get as much as the first.
            ("clients", &[(Some("a"), 4), (Some("b"), 2), (Some("b"), 2)], 4, &[&[0, 1, 2, 0], &[1, 0, 2, 0]]),
        ];
        for (name, requests, room, wanted) in cases {
            let mut queue = Queue::new();
            for &(client, windows) in requests {
                queue.push(Caller::nobody(client), |account| Job(account, windows));
            }
            for wanted in wanted {
                let next = queue.next(room, 10);
                assert_eq!(next, *wanted, "{name}");
                next.iter().for_each(|&job| queue.jobs[job].1 -= 1);
            }
            assert!(queue.next(room, 10).is_empty());
        }
    }

    #[test]
    fn who_comes_later_neither_waits_nor_takes_over() {
        let mut queue = Queue::new();
        queue.push(Caller::nobody(None), |account| Job(account, 100));
        for _ in 0..10 {
            queue.next(2, 10);
        }
        queue.push(Caller::nobody(None), |account| Job(account, 100));
        assert_eq!(queue.next(6, 10), [0, 1, 0, 1, 0, 1]);
    }
}
