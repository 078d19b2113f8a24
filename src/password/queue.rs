//! The hashes that wait: bounded in all, by account and by address, and taken in turn.
//!
//! Each address has its own line, and the next hash is the first of the line whose turn it is. So an address
//! that asks for many waits for itself: the others' wait does not grow with what it asks for.

use std::{collections::VecDeque, net::IpAddr};

use super::job::Job;

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
    pub(super) closed: bool,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Puts a job at the end of its line. In a full queue the last of the longest line gives way, if that line has
    /// two more; it is told that the workers are busy.
    pub(super) fn push(&mut self, job: Job, capacity: usize) -> bool {
        if self.length >= capacity {
            self.drop_abandoned();
        }
        let address = job.origin.address;
        let own = self.lines.iter().position(|line| line.address == address);
        if self.length >= capacity {
            let length = own.map_or(0, |own| self.lines[own].jobs.len());
            let longest = self.lines.iter_mut().max_by_key(|line| line.jobs.len());
            match longest.filter(|longest| longest.jobs.len() > length + 1) {
                Some(longest) => drop(longest.jobs.pop_back()),
                None => return false,
            }
            self.length -= 1;
        }
        match own {
            Some(own) => self.lines[own].jobs.push_back(job),
            None => self.lines.push_back(Line { address, jobs: VecDeque::from([job]) }),
        }
        self.length += 1;
        true
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

    /// Lets go of those that nobody waits for any more.
    pub(super) fn drop_abandoned(&mut self) {
        for line in &mut self.lines {
            line.jobs.retain(|job| !job.is_abandoned());
        }
        self.lines.retain(|line| !line.jobs.is_empty());
        self.length = self.lines.iter().map(|line| line.jobs.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::{super::share::Origin, *};

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_take_turns_whatever_one_of_them_asks_for() {
        let mut queue = Queue::default();
        let mut replies = Vec::new();
        let mut push = |account: &str, from: &str| {
            let (job, reply) = Job::for_test(Origin::new(Some(account), address(from)));
            replies.push(reply);
            queue.push(job, 16)
        };
        for index in 0..4 {
            assert!(push(&format!("a{index}"), "192.0.2.1"));
        }
        assert!(push("b", "192.0.2.2") && push("c", "2001:db8::1") && push("d", "2001:db8::2"));
        let order: Vec<_> =
            std::iter::from_fn(|| queue.pop()).filter_map(|job| job.origin.account.clone()).collect();
        let order: Vec<&str> = order.iter().map(AsRef::as_ref).collect();
        assert_eq!(order, ["a0", "b", "c", "a1", "d", "a2", "a3"]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn a_full_queue_lets_go_of_what_nobody_waits_for() {
        let mut queue = Queue::default();
        for index in 0..4_u8 {
            let (job, reply) = Job::for_test(Origin::new(None, IpAddr::from([192, 0, 2, index])));
            assert!(queue.push(job, 4));
            drop(reply);
        }
        let (job, _reply) = Job::for_test(Origin::default());
        assert!(queue.push(job, 4));
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn in_a_full_queue_the_longest_line_gives_way_to_a_shorter_one() {
        let mut queue = Queue::default();
        let (mut replies, mut last) = (Vec::new(), None);
        for from in ["192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2"] {
            let (job, reply) = Job::for_test(Origin::new(None, address(from)));
            assert!(queue.push(job, 4));
            if from == "192.0.2.1" {
                replies.extend(last.replace(reply));
            } else {
                replies.push(reply);
            }
        }
        let (job, _reply) = Job::for_test(Origin::new(None, address("192.0.2.3")));
        assert!(queue.push(job, 4));
        assert!(
            last.unwrap()
                .try_recv()
                .is_err_and(|error| error == tokio::sync::oneshot::error::TryRecvError::Closed)
        );
        // Now nobody has two more than a newcomer would.
        let (job, _reply) = Job::for_test(Origin::new(None, address("192.0.2.2")));
        assert!(!queue.push(job, 4));
    }
}
