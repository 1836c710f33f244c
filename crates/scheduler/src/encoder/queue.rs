//! Whose texts come next.

use std::{collections::HashMap, sync::Arc, time::Instant};

use tokio::sync::oneshot;

use super::{EncodeInput, EncodeRequest, Encoded};
use crate::{Failure, planner::queue::Shares};

/// A request, and how far it is.
#[derive(Debug)]
pub(super) struct Job {
    pub id: u64,
    pub client: Option<Arc<str>>,
    inputs: Vec<EncodeInput>,
    /// The first text that no step has taken yet.
    next: usize,
    /// Of the texts before `next`, in order.
    vectors: Vec<Vec<f32>>,
    /// Tokens computed for it, and what it was lifted to when it came.
    served: u64,
    pub submitted: Instant,
    pub deadline: Option<Instant>,
    pub started: Option<Instant>,
    answer: oneshot::Sender<Result<Encoded, Failure>>,
}

impl Job {
    pub fn new(
        id: u64,
        request: EncodeRequest,
        answer: oneshot::Sender<Result<Encoded, Failure>>,
        submitted: Instant,
    ) -> Self {
        Self {
            id,
            client: request.client,
            next: 0,
            vectors: Vec::with_capacity(request.inputs.len()),
            inputs: request.inputs,
            served: 0,
            submitted,
            deadline: request.timeout.and_then(|timeout| submitted.checked_add(timeout)),
            started: None,
            answer,
        }
    }

    /// Whether nobody waits for it any more.
    pub fn is_gone(&self) -> bool {
        self.answer.is_closed()
    }

    pub fn is_late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// Gives its client the answer. A client that has gone away wants none: that is no error.
    pub fn end(self, result: Result<(), Failure>, now: Instant) {
        let started = self.started.unwrap_or(now);
        let encoded = Encoded {
            tokens: self.inputs.iter().map(|input| input.tokens.len()).sum(),
            vectors: self.vectors,
            queue: started - self.submitted,
            compute: now - started,
        };
        let _ = self.answer.send(result.map(|()| encoded));
    }
}

/// The requests that have not ended.
#[derive(Debug, Default)]
pub(super) struct Queue {
    jobs: Vec<Job>,
    shares: Shares,
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    pub fn push(&mut self, mut job: Job) {
        // Nobody saves up a claim by coming late: it begins where the least served of its client's are.
        let siblings = self.jobs.iter().filter(|other| other.client == job.client);
        job.served = siblings.map(|other| other.served).min().unwrap_or(0);
        self.shares.arrive(&job.client);
        self.jobs.push(job);
    }

    /// Takes out the jobs that `which` accepts.
    pub fn take(&mut self, which: impl Fn(&Job) -> bool) -> Vec<Job> {
        let (taken, left) = std::mem::take(&mut self.jobs).into_iter().partition(which);
        self.jobs = left;
        let taken: Vec<Job> = taken;
        taken.iter().for_each(|job| self.shares.leave(&job.client));
        taken
    }

    /// The texts of the next step, at most `budget` tokens of them or a single one, each with its request's id; texts of
    /// one request are in order. They count as computed from now on.
    pub fn next_batch(&mut self, budget: usize, now: Instant) -> Vec<u64> {
        let mut batch = Vec::new();
        let mut left = budget;
        loop {
            let shares = &self.shares;
            let waiting = self.jobs.iter_mut().filter(|job| job.next < job.inputs.len());
            let Some(job) = waiting.min_by_key(|job| (shares.served(&job.client), job.served, job.id)) else { break };
            let tokens = job.inputs[job.next].tokens.len();
            if tokens > left && !batch.is_empty() {
                break;
            }
            job.next += 1;
            job.served += tokens as u64;
            job.started.get_or_insert(now);
            self.shares.charge(&job.client, tokens);
            batch.push(job.id);
            left = left.saturating_sub(tokens);
            if left == 0 {
                break;
            }
        }
        batch
    }

    /// The texts that a batch of [`next_batch`](Self::next_batch) stands for.
    pub fn inputs(&self, batch: &[u64]) -> Vec<&EncodeInput> {
        let mut seen: HashMap<u64, usize> = HashMap::new();
        let one = |id: &u64| {
            let job = self.jobs.iter().find(|job| job.id == *id)?;
            let nth = seen.entry(*id).or_insert(job.vectors.len());
            *nth += 1;
            job.inputs.get(*nth - 1)
        };
        batch.iter().filter_map(one).collect()
    }

    /// Stores a batch's vectors, and takes out the jobs that have all of theirs.
    pub fn complete(&mut self, batch: &[u64], vectors: Vec<Vec<f32>>) -> Vec<Job> {
        for (id, vector) in batch.iter().zip(vectors) {
            if let Some(job) = self.jobs.iter_mut().find(|job| job.id == *id) {
                job.vectors.push(vector);
            }
        }
        self.take(|job| job.vectors.len() == job.inputs.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request of `client` for texts of these lengths.
    fn job(id: u64, client: Option<&str>, lengths: &[usize]) -> Job {
        let input = |&len: &usize| EncodeInput { tokens: vec![7; len], types: Vec::new() };
        let inputs = lengths.iter().map(input).collect();
        let request = EncodeRequest { inputs, client: client.map(Into::into), timeout: None };
        Job::new(id, request, oneshot::channel().0, Instant::now())
    }

    /// All batches of `budget` tokens until nothing is left.
    fn batches(jobs: Vec<Job>, budget: usize) -> Vec<Vec<u64>> {
        let mut queue = Queue::default();
        jobs.into_iter().for_each(|job| queue.push(job));
        let mut batches = Vec::new();
        while !queue.is_empty() {
            let batch = queue.next_batch(budget, Instant::now());
            assert_eq!(queue.inputs(&batch).len(), batch.len());
            queue.complete(&batch, vec![vec![0.0]; batch.len()]);
            batches.push(batch);
        }
        batches
    }

    #[test]
    fn steps_are_shared_by_clients_and_then_by_requests() {
        let cases = [
            ("one request", vec![job(1, None, &[4, 4, 4])], vec![vec![1, 1], vec![1]]),
            ("too long for the budget", vec![job(1, None, &[9, 1])], vec![vec![1], vec![1]]),
            (
                "a long list and a short one",
                vec![job(1, None, &[4; 3]), job(2, None, &[4])],
                vec![vec![1, 2], vec![1, 1]],
            ),
            // The second and third are one client's: together they get as much as the first.
            (
                "clients",
                vec![job(1, Some("a"), &[2; 4]), job(2, Some("b"), &[2; 2]), job(3, Some("b"), &[2; 2])],
                vec![vec![1, 2, 3, 1], vec![2, 1, 3, 1]],
            ),
            (
                "what does not fit waits",
                vec![job(1, None, &[6, 6]), job(2, None, &[6])],
                vec![vec![1], vec![2], vec![1]],
            ),
        ];
        for (name, jobs, wanted) in cases {
            assert_eq!(batches(jobs, 8), wanted, "{name}");
        }
    }

    #[test]
    fn one_that_comes_later_neither_waits_nor_takes_over() {
        let mut queue = Queue::default();
        queue.push(job(1, None, &[4; 100]));
        for _ in 0..10 {
            let batch = queue.next_batch(8, Instant::now());
            queue.complete(&batch, vec![vec![0.0]; 2]);
        }
        queue.push(job(2, None, &[4; 100]));
        let next: Vec<u64> = (0..3).flat_map(|_| queue.next_batch(8, Instant::now())).collect();
        assert_eq!(next, [1, 2, 1, 2, 1, 2]);
    }

    #[test]
    fn vectors_come_in_the_order_of_the_texts() {
        let (answer, mut result) = oneshot::channel();
        let inputs = (1..=3).map(|len| EncodeInput { tokens: vec![7; len], types: Vec::new() }).collect();
        let mut queue = Queue::default();
        queue.push(Job::new(9, EncodeRequest { inputs, client: None, timeout: None }, answer, Instant::now()));
        while !queue.is_empty() {
            let batch = queue.next_batch(3, Instant::now());
            let vectors = queue.inputs(&batch).iter().map(|input| vec![input.tokens.len() as f32]).collect();
            let ended = queue.complete(&batch, vectors);
            ended.into_iter().for_each(|job| job.end(Ok(()), Instant::now()));
        }
        let encoded = result.try_recv().unwrap().unwrap();
        assert_eq!((encoded.vectors, encoded.tokens), (vec![vec![1.0], vec![2.0], vec![3.0]], 6));
    }
}
