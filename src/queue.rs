//! Queues that an item can leave before its turn.

use std::collections::VecDeque;

/// A queue. Each item has a ticket, by which it can be taken out at any time, at a cost that does not grow with the
/// length of the queue (but for a logarithm).
///
/// An item that is taken out leaves a gap. When more than half of the places are gaps, all gaps are removed: so each
/// item is moved a bounded number of times, counted over all that are taken out.
pub(crate) struct Queue<T> {
    /// In order of the tickets.
    places: VecDeque<(u64, Option<T>)>,
    /// The ticket that the next item will have at the end, and at the front.
    next: u64,
    next_in_front: u64,
    gaps: usize,
}

#[cfg(test)]
thread_local! {
    /// How many places of queues this thread has looked at or moved in order to take items out.
    pub(crate) static STEPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
fn count_steps(steps: usize) {
    STEPS.with(|all| all.set(all.get() + steps));
}

/// The first ticket: there is room on either side.
const FIRST: u64 = 1 << 63;

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue { places: VecDeque::new(), next: FIRST, next_in_front: FIRST - 1, gaps: 0 }
    }
}

impl<T> Queue<T> {
    /// The ticket that the next item will have.
    pub(crate) fn next_ticket(&self) -> u64 {
        self.next
    }

    /// The ticket that the next item will have that is put in front.
    pub(crate) fn next_ticket_in_front(&self) -> u64 {
        self.next_in_front
    }

    /// Appends an item; gives its ticket.
    pub(crate) fn push(&mut self, item: T) -> u64 {
        self.places.push_back((self.next, Some(item)));
        self.next += 1;
        self.next - 1
    }

    /// Puts an item in front of all others.
    pub(crate) fn push_in_front(&mut self, item: T) {
        self.places.push_front((self.next_in_front, Some(item)));
        self.next_in_front -= 1;
    }

    /// Takes the first item.
    pub(crate) fn pop(&mut self) -> Option<T> {
        loop {
            match self.places.pop_front()? {
                (_, None) => self.gaps -= 1,
                (_, item) => return item,
            }
        }
    }

    /// The first item.
    pub(crate) fn first(&mut self) -> Option<&T> {
        while self.places.front()?.1.is_none() {
            self.places.pop_front();
            self.gaps -= 1;
        }
        self.places.front()?.1.as_ref()
    }

    /// The items whose tickets are not below this one, in order, with their tickets.
    pub(crate) fn since(&self, ticket: u64) -> impl Iterator<Item = (u64, &T)> {
        let from = self.places.partition_point(|(its, _)| *its < ticket);
        self.places.range(from..).filter_map(|(ticket, item)| Some((*ticket, item.as_ref()?)))
    }

    pub(crate) fn get_mut(&mut self, ticket: u64) -> Option<&mut T> {
        let at = self.place_of(ticket)?;
        self.places[at].1.as_mut()
    }

    /// Takes out the item with this ticket, if it has not left.
    pub(crate) fn remove(&mut self, ticket: u64) -> Option<T> {
        let at = self.place_of(ticket)?;
        let item = self.places[at].1.take()?;
        self.gaps += 1;
        if self.gaps > self.places.len() / 2 {
            #[cfg(test)]
            count_steps(self.places.len());
            self.places.retain(|(_, item)| item.is_some());
            self.places.shrink_to(2 * self.places.len());
            self.gaps = 0;
        }
        Some(item)
    }

    fn place_of(&self, ticket: u64) -> Option<usize> {
        #[cfg(test)]
        count_steps(self.places.len().checked_ilog2().unwrap_or(0) as usize);
        self.places.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many items are in the queue.
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.gaps
    }

    /// Takes out all items, in order. Tickets go on from where they were.
    pub(crate) fn take_all(&mut self) -> impl DoubleEndedIterator<Item = T> {
        self.gaps = 0;
        std::mem::take(&mut self.places).into_iter().filter_map(|(_, item)| item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_seen_before_they_leave() {
        let mut queue = Queue::default();
        let tickets: Vec<u64> = (0..6).map(|n| queue.push(n)).collect();
        for gone in [0, 3] {
            queue.remove(tickets[gone]);
        }
        assert_eq!(queue.first(), Some(&1));
        let seen: Vec<_> = queue.since(tickets[2]).collect();
        assert_eq!(seen, [(tickets[2], &2), (tickets[4], &4), (tickets[5], &5)]);
        assert_eq!(queue.since(queue.next_ticket()).count(), 0);
        assert_eq!(
            [queue.pop(), queue.pop(), queue.pop(), queue.pop(), queue.pop()].map(|n| n.unwrap_or(9)),
            [1, 2, 4, 5, 9]
        );
        assert_eq!(queue.first(), None);
    }

    #[test]
    fn items_leave_by_ticket_and_the_others_come_in_order() {
        let mut queue = Queue::default();
        let tickets: Vec<u64> = (0..10).map(|n| queue.push(n)).collect();
        for n in [3, 9, 0, 4] {
            assert_eq!(queue.remove(tickets[n]), Some(n));
            assert_eq!((queue.remove(tickets[n]), queue.get_mut(tickets[n])), (None, None));
        }
        *queue.get_mut(tickets[5]).unwrap() = 50;
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some(1), Some(2), Some(50)));
        let more = queue.push(10);
        assert_eq!((more, queue.next_ticket()), (FIRST + 10, FIRST + 11));
        assert_eq!(queue.take_all().collect::<Vec<_>>(), [6, 7, 8, 10]);
        assert!(queue.is_empty() && queue.pop().is_none() && queue.remove(more).is_none());
        assert_eq!(queue.push(11), FIRST + 11);
    }

    #[test]
    fn items_that_are_put_in_front_come_first_and_leave_by_ticket() {
        let mut queue = Queue::default();
        let behind = queue.push(3);
        let in_front: Vec<u64> = [2, 1, 0]
            .map(|n| {
                let ticket = queue.next_ticket_in_front();
                queue.push_in_front(n);
                ticket
            })
            .into();
        assert_eq!((queue.remove(in_front[1]), queue.remove(behind)), (Some(1), Some(3)));
        assert_eq!(queue.take_all().rev().collect::<Vec<_>>(), [2, 0]);
        assert_eq!((queue.next_ticket(), queue.next_ticket_in_front()), (FIRST + 1, FIRST - 4));
    }

    /// The steps for each item are compared between two lengths: in any order, they may grow with the logarithm only.
    #[test]
    fn taking_all_out_costs_near_linear_time_in_any_order() {
        let orders: [fn(u64, u64) -> u64; 4] = [
            |n, _| n,
            |n, all| all - 1 - n,
            |n, all| n * 7919 % all,
            |n, all| if n % 2 == 0 { n / 2 } else { all - 1 - n / 2 },
        ];
        for order in orders {
            let steps = [1 << 10, 1 << 17].map(|all: u64| {
                let mut queue = Queue::default();
                STEPS.set(0);
                (0..all).for_each(|n| assert_eq!(queue.push(n), FIRST + n));
                (0..all).for_each(|n| assert_eq!(queue.remove(FIRST + order(n, all)), Some(order(n, all))));
                assert!(queue.is_empty() && queue.places.is_empty());
                STEPS.get() as f64 / all as f64
            });
            assert!(steps[1] <= steps[0] * 2.0, "steps for each item, by length: {steps:?}");
        }
    }
}
