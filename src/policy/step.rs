//! `step`: what comes next where room is to be made, or the window is to come down to its share.

/// What is known then: all of it costs, as figures that others move at the same time.
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    /// What is charged.
    pub used: u64,
    /// The budget.
    pub max: u64,
    /// What is to be free of it.
    pub room: u64,
    /// What the window may cost.
    pub share: u64,
    /// What the window costs.
    pub window: u64,
    /// What the main region costs.
    pub main: u64,
    /// What the window costs more than its share since that was made smaller.
    pub surplus: u64,
    /// What is free where no entry may move to main unfiltered: room that was made ahead of need.
    pub ahead: u64,
}

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Rest,
    /// The entry at the window's head moves to main: it is there by right since the window was larger.
    Yield,
    /// It moves to main, where there is room for it.
    Promote,
    /// It moves to main or goes, though none has to.
    Filter,
    /// It, or a victim of main, goes.
    Compare,
    /// A victim of main goes.
    Evict,
}

impl State {
    /// Returns what is missing: what the budget lacks of the room, and what it is over its limit.
    #[inline]
    pub fn missing(&self) -> u64 {
        // Apart from each other, for the sum of all three need not be a number.
        let over = self.used.saturating_sub(self.max);
        over.saturating_add(self.room.saturating_sub(self.max.saturating_sub(self.used)))
    }

    /// Returns whether the window is above its share: what the room is for comes to it first.
    #[inline]
    pub fn is_window_full(&self) -> bool {
        self.window > 0 && self.window.saturating_add(self.room) > self.share
    }

    /// Returns whether the cache is still filling, or much was removed.
    #[inline]
    pub fn is_filling(&self) -> bool {
        let ahead = self.room.saturating_add(self.ahead).saturating_add(1);
        self.used < self.max.saturating_sub(ahead)
    }

    /// Returns what main may cost.
    #[inline]
    fn target(&self) -> u64 {
        self.max.saturating_sub(self.share.max(self.room))
    }
}

/// Returns what is done next.
#[inline]
pub fn step(state: State) -> Step {
    let is_full = state.is_window_full();
    if is_full && state.surplus > 0 {
        return Step::Yield;
    }
    if state.missing() > 0 {
        return if state.main > state.target() { Step::Evict } else { Step::Compare };
    }
    match is_full {
        false => Step::Rest,
        // An entry that is too many in the window takes a free place.
        true if state.main < state.target() && state.is_filling() => Step::Promote,
        true => Step::Filter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: State = State {
        used: 1000,
        max: 1000,
        room: 1,
        share: 50,
        window: 50,
        main: 950,
        surplus: 0,
        ahead: 1,
    };

    #[test]
    fn one_of_two_goes_where_room_is_missing() {
        assert_eq!((FULL.missing(), step(FULL)), (1, Step::Compare));
        // Main is above what it may cost, so one of its entries goes.
        assert_eq!(step(State { main: 951, window: 49, ..FULL }), Step::Evict);
        // After the budget was lowered.
        let lowered = State { max: 900, ..FULL };
        assert_eq!((lowered.missing(), step(lowered)), (101, Step::Evict));
        let far = State { used: u64::MAX, max: 0, room: u64::MAX, ..FULL };
        assert_eq!(far.missing(), u64::MAX);
    }

    #[test]
    fn nothing_is_done_where_there_is_room_and_the_window_is_within_its_share() {
        assert_eq!(step(State { used: 999, window: 49, ..FULL }), Step::Rest);
        assert_eq!(step(State { used: 0, window: 0, main: 0, share: 0, ..FULL }), Step::Rest);
    }

    #[test]
    fn window_above_its_share_fills_free_places_or_is_filtered() {
        let filling = State { used: 500, main: 450, window: 50, ..FULL };
        assert_eq!((filling.is_filling(), step(filling)), (true, Step::Promote));
        let full = State { used: 998, main: 940, window: 58, ..FULL };
        assert_eq!((full.is_filling(), step(full)), (false, Step::Filter));
        // Main is full, though the budget is not: room that was made ahead lets nobody in.
        assert_eq!(step(State { main: 950, window: 51, used: 700, ..FULL }), Step::Filter);
    }

    #[test]
    fn what_the_window_held_by_right_moves_on_first() {
        let smaller = State { surplus: 100, window: 150, ..FULL };
        assert_eq!(step(smaller), Step::Yield);
        assert_eq!(step(State { surplus: 100, window: 49, ..FULL }), Step::Compare);
    }
}
