//! The hashes that wait: bounded in all, by account and by address, and taken in turn.
//!
//! Each address has its own line, and the next hash is the first of the line whose turn it is. So an address
//! that asks for many waits for itself: the others' wait does not grow with what it asks for.

use std::{collections::VecDeque, net::IpAddr};

use super::job::{Job, Origin};

/// The share of the queue that one address, and one account, may fill is one in so many.
const SHARE: usize = 4;

/// Why a hash may not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The queue is full.
    Queue,
    /// The account or the address has its fill.
    Origin,
}

struct Line {
    address: Option<IpAddr>,
    jobs: VecDeque<Job>,
}

/// The queue of one lane.
#[derive(Default)]
pub(super) struct Queue {
    /// None is empty. The first has its turn.
    lines: VecDeque<Line>,
    length: usize,
    /// Accounts of jobs that run.
    running: Vec<Box<str>>,
    pub(super) closed: bool,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Puts a job at the end of its line.
    pub(super) fn push(&mut self, job: Job, capacity: usize) -> Result<(), Full> {
        if self.length >= capacity {
            self.drop_abandoned();
        }
        if self.length >= capacity {
            return Err(Full::Queue);
        }
        let share = (capacity / SHARE).max(1);
        if let Some(account) = &job.origin.account {
            let waiting = self.lines.iter().flat_map(|line| &line.jobs);
            let waiting = waiting.filter(|waiting| waiting.origin.account.as_ref() == Some(account)).count();
            let running = self.running.iter().filter(|running| *running == account).count();
            if waiting + running >= share {
                return Err(Full::Origin);
            }
        }
        let address = job.origin.address;
        let line = self.lines.iter_mut().find(|line| line.address == address);
        match line {
            Some(line) if address.is_some() && line.jobs.len() >= share => {
                return Err(Full::Origin);
            }
            Some(line) => line.jobs.push_back(job),
            None => self.lines.push_back(Line { address, jobs: VecDeque::from([job]) }),
        }
        self.length += 1;
        Ok(())
    }

    /// The next job; its line goes behind the others.
    pub(super) fn pop(&mut self) -> Option<Job> {
        let mut line = self.lines.pop_front()?;
        let job = line.jobs.pop_front();
        if !line.jobs.is_empty() {
            self.lines.push_back(line);
        }
        self.length -= 1;
        job
    }

    /// A job of this origin runs.
    pub(super) fn begins(&mut self, origin: &Origin) {
        self.running.extend(origin.account.clone());
    }

    /// It has ended.
    pub(super) fn ends(&mut self, origin: &Origin) {
        let place = self.running.iter().position(|running| Some(running) == origin.account.as_ref());
        if let Some(place) = place {
            self.running.swap_remove(place);
        }
    }

    /// Lets go of those that nobody waits for any more.
    fn drop_abandoned(&mut self) {
        for line in &mut self.lines {
            line.jobs.retain(|job| !job.is_abandoned());
        }
        self.lines.retain(|line| !line.jobs.is_empty());
        self.length = self.lines.iter().map(|line| line.jobs.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_take_turns_whatever_one_of_them_asks_for() {
        let mut queue = Queue::default();
        let mut replies = Vec::new();
        let mut push = |queue: &mut Queue, account: &str, from: &str| {
            let (job, reply) = Job::for_test(Origin::new(Some(account), address(from)));
            replies.push(reply);
            queue.push(job, 16)
        };
        for index in 0..4 {
            assert_eq!(push(&mut queue, &format!("a{index}"), "192.0.2.1"), Ok(()));
        }
        assert_eq!(push(&mut queue, "a4", "192.0.2.1"), Err(Full::Origin));
        assert_eq!(push(&mut queue, "b", "192.0.2.2"), Ok(()));
        assert_eq!(push(&mut queue, "c", "2001:db8::1"), Ok(()));
        assert_eq!(push(&mut queue, "d", "2001:db8::2"), Ok(()));
        let order: Vec<_> =
            std::iter::from_fn(|| queue.pop()).filter_map(|job| job.origin.account.clone()).collect();
        assert_eq!(
            order.iter().map(AsRef::as_ref).collect::<Vec<&str>>(),
            ["a0", "b", "c", "a1", "d", "a2", "a3"]
        );
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn an_account_has_a_few_from_wherever_they_come() {
        let mut queue = Queue::default();
        let mut replies = Vec::new();
        let mut push = |queue: &mut Queue, from: &str| {
            let (job, reply) = Job::for_test(Origin::new(Some("alice"), address(from)));
            replies.push(reply);
            queue.push(job, 16)
        };
        for index in 0..4 {
            assert_eq!(push(&mut queue, &format!("192.0.2.{index}")), Ok(()));
        }
        assert_eq!(push(&mut queue, "192.0.2.9"), Err(Full::Origin));
        let running = queue.pop().unwrap();
        queue.begins(&running.origin);
        assert_eq!(push(&mut queue, "192.0.2.9"), Err(Full::Origin));
        queue.ends(&running.origin);
        assert_eq!(push(&mut queue, "192.0.2.9"), Ok(()));
    }

    #[test]
    fn a_full_queue_lets_go_of_what_nobody_waits_for() {
        let mut queue = Queue::default();
        for index in 0..4_u8 {
            let (job, reply) = Job::for_test(Origin::new(None, IpAddr::from([192, 0, 2, index])));
            assert_eq!(queue.push(job, 4), Ok(()));
            drop(reply);
        }
        let (job, _reply) = Job::for_test(Origin::default());
        assert_eq!(queue.push(job, 4), Ok(()));
        assert_eq!(queue.len(), 1);
    }
}
