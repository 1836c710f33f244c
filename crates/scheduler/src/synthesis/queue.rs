//! Whose utterance is next.

use crate::{SpeakRequest, Spoken, background::Caller, planner::queue::Shares};

/// A request, and how far it is.
#[derive(Debug)]
pub(super) struct Job {
    pub caller: Caller<Vec<f32>>,
    pub request: SpeakRequest,
    /// The utterance to be spoken next.
    pub next: usize,
    id: u64,
    /// Symbols spoken for it, and what it was lifted to when it came.
    served: u64,
}

impl Job {
    /// The utterance to be spoken next. A job whose utterances are all spoken is in no queue.
    pub fn utterance(&self) -> &Spoken {
        &self.request.utterances[self.next]
    }

    /// Whether no utterance is left.
    pub fn is_done(&self) -> bool {
        self.next == self.request.utterances.len()
    }
}

/// The requests that have not ended.
#[derive(Debug, Default)]
pub(super) struct Queue {
    jobs: Vec<Job>,
    shares: Shares,
    next_id: u64,
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    pub fn push(&mut self, request: SpeakRequest, caller: Caller<Vec<f32>>) {
        // Nobody saves up a claim by coming late: it begins where the least served of its client's are.
        let siblings = self.jobs.iter().filter(|other| other.caller.client == caller.client);
        let served = siblings.map(|other| other.served).min().unwrap_or(0);
        self.shares.arrive(&caller.client);
        self.jobs.push(Job { caller, request, next: 0, id: self.next_id, served });
        self.next_id += 1;
    }

    /// Takes out the jobs whose callers `which` accepts.
    pub fn remove(&mut self, which: impl Fn(&Caller<Vec<f32>>) -> bool) -> Vec<Caller<Vec<f32>>> {
        let taken: Vec<Job> = self.jobs.extract_if(.., |job| which(&job.caller)).collect();
        taken.iter().for_each(|job| self.shares.leave(&job.caller.client));
        taken.into_iter().map(|job| job.caller).collect()
    }

    /// Takes out the job whose utterance is next, which counts as spoken from now on.
    pub fn take_next(&mut self) -> Option<Job> {
        let shares = &self.shares;
        let order = |job: &Job| (shares.served(&job.caller.client), job.served, job.id);
        let index = (0..self.jobs.len()).min_by_key(|&index| order(&self.jobs[index]))?;
        let mut job = self.jobs.swap_remove(index);
        let symbols = job.utterance().symbols.len();
        job.served += symbols as u64;
        self.shares.charge(&job.caller.client, symbols);
        Some(job)
    }

    /// Puts a job back whose utterance was spoken, or hands its caller over if that was the last.
    pub fn put_back(&mut self, mut job: Job) -> Option<Caller<Vec<f32>>> {
        job.next += 1;
        if job.is_done() {
            return Some(self.end(job));
        }
        self.jobs.push(job);
        None
    }

    /// A job taken out is not put back.
    pub fn end(&mut self, job: Job) -> Caller<Vec<f32>> {
        self.shares.leave(&job.caller.client);
        job.caller
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A request of `client` for utterances of these lengths.
    fn request(lengths: &[usize]) -> SpeakRequest {
        let spoken = |&len: &usize| Spoken { symbols: vec![7; len], style: [].into(), pause: Duration::ZERO };
        let utterances = lengths.iter().map(spoken).collect();
        SpeakRequest { utterances, speed: 1.0, seed: 0, client: None, timeout: None }
    }

    #[test]
    fn utterances_are_shared_by_clients_and_then_by_requests() {
        // (name, (client, symbols of each utterance) of each request, whose utterances come)
        type Case<'a> = (&'a str, &'a [(Option<&'a str>, &'a [usize])], &'a [u64]);
        let cases: [Case<'_>; 4] = [
            ("one request", &[(None, &[4, 4, 4])], &[0, 0, 0]),
            ("a book and a sentence", &[(None, &[4; 4]), (None, &[4])], &[0, 1, 0, 0, 0]),
            ("long ones count for more", &[(None, &[9, 9]), (None, &[3; 4])], &[0, 1, 1, 1, 0, 1]),
            // The second and third are one client's: together they get as much as the first.
            ("clients", &[(Some("a"), &[2; 4]), (Some("b"), &[2; 2]), (Some("b"), &[2; 2])], &[0, 1, 2, 0, 1, 0, 2, 0]),
        ];
        for (name, requests, wanted) in cases {
            let mut queue = Queue::default();
            for (client, lengths) in requests {
                queue.push(request(lengths), Caller::nobody(*client));
            }
            let mut order = Vec::new();
            while let Some(job) = queue.take_next() {
                order.push(job.id);
                queue.put_back(job);
            }
            assert_eq!(order, wanted, "{name}");
            assert!(queue.is_empty());
        }
    }
}
