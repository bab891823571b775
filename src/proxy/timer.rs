//! The one timer of a connection, for one deadline after another.
//!
//! A deadline that moves away costs nothing: the timer stays where it is, and when it fires too early it is set again. A
//! request's deadlines nearly always move away, so the runtime's timer wheel is touched every few seconds, not per request.

use std::pin::Pin;
use std::task::{Context, Waker};

use tokio::time::Sleep;

use crate::clock::Clock;
use crate::vocabulary::time::Timestamp;

/// A deadline over a pinned `Sleep`.
pub struct Timer<'s> {
    clock: Clock,
    sleep: Pin<&'s mut Sleep>,
    /// When the sleep fires; never later than `due`.
    armed: Timestamp,
    due: Timestamp,
    /// The waker that the sleep has.
    waker: Option<Waker>,
}

impl<'s> Timer<'s> {
    /// A timer that is due when it is first set.
    pub fn new(clock: Clock, sleep: Pin<&'s mut Sleep>) -> Self {
        let never = Timestamp::from_nanos(u64::MAX);
        Self { clock, sleep, armed: never, due: never, waker: None }
    }

    /// Moves the deadline to `due`.
    pub fn set(&mut self, due: Timestamp) {
        self.due = due;
        if due < self.armed {
            self.arm();
        }
    }

    /// Whether the deadline has passed; if not, the task is woken when it does.
    pub fn is_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        if self.wakes(cx) && !self.sleep.is_elapsed() {
            return false;
        }
        self.waker = None;
        while self.sleep.as_mut().poll(cx).is_ready() {
            if self.clock.now() >= self.due {
                return true;
            }
            self.arm();
        }
        self.waker = Some(cx.waker().clone());
        false
    }

    /// The same for a caller that has just read the clock: mostly it compares two stamps.
    pub fn is_overdue_at(&mut self, now: Timestamp, cx: &mut Context<'_>) -> bool {
        let waits = now < self.armed && self.wakes(cx);
        !waits && self.is_overdue(cx)
    }

    /// The sleep has this waker.
    fn wakes(&self, cx: &Context<'_>) -> bool {
        self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
    }

    fn arm(&mut self) {
        (self.armed, self.waker) = (self.due, None);
        self.sleep.as_mut().reset(self.clock.instant(self.due));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;
    use std::time::Duration;

    async fn fire(timer: &mut Timer<'_>) {
        poll_fn(|cx| if timer.is_overdue(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_fires_at_the_deadline_set_last() {
        let clock = Clock::start();
        let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
        let mut timer = Timer::new(clock, sleep.as_mut());
        for seconds in [5, 60, 2, 2, 90] {
            let due = clock.now() + SECOND * seconds;
            timer.set(clock.now() + SECOND * 30);
            timer.set(due);
            fire(&mut timer).await;
            assert!((due..due + SECOND / 100).contains(&clock.now()), "{seconds}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_moves_away_in_time_never_fires() {
        let clock = Clock::start();
        let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
        let mut timer = Timer::new(clock, sleep.as_mut());
        for _ in 0..20 {
            timer.set(clock.now() + SECOND * 3);
            let fired = tokio::time::timeout(SECOND * 2, fire(&mut timer)).await;
            assert!(fired.is_err());
        }
    }
}
