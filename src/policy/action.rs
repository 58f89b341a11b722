//! `next_action`: decides what is done when room is needed or the window exceeds its share.

/// The costs that the decision depends on. Other threads change them concurrently, so together they
/// are no consistent snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    /// The cost charged.
    pub used: u64,
    /// The budget.
    pub max: u64,
    /// The part of the budget that must be free afterwards.
    pub room: u64,
    /// The cost that the window may have.
    pub share: u64,
    /// The cost of the window.
    pub window: u64,
    /// The cost of the main region.
    pub main: u64,
    /// The cost by which the window exceeds its share since the share was reduced.
    pub surplus: u64,
    /// Free cost that may be credit. It does not let entries into main unfiltered.
    pub ahead: u64,
}

/// The next action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Rest,
    /// Move the entry at the window's head to main unfiltered: the window's share was reduced, and
    /// the entry was within the larger one.
    Yield,
    /// Move the entry at the window's head to main, which has room for it.
    Promote,
    /// Move the entry at the window's head to main or evict it, though no room is missing.
    Filter,
    /// Evict either the entry at the window's head or a victim of main.
    Compare,
    /// Evict a victim of main.
    Evict,
}

impl State {
    /// Returns the cost to evict: the excess over the budget, plus the part of the room that is not
    /// free.
    #[inline]
    pub fn missing(&self) -> u64 {
        // Computed separately, because `used + room` may overflow.
        let over = self.used.saturating_sub(self.max);
        over.saturating_add(self.room.saturating_sub(self.max.saturating_sub(self.used)))
    }

    /// Returns whether the window exceeds its share with the entry that the room is for, which
    /// enters the window.
    #[inline]
    pub fn is_window_full(&self) -> bool {
        self.window > 0 && self.window.saturating_add(self.room) > self.share
    }

    /// Returns whether the cache is still filling, or is again after many removals.
    #[inline]
    pub fn is_filling(&self) -> bool {
        let ahead = self.room.saturating_add(self.ahead).saturating_add(1);
        self.used < self.max.saturating_sub(ahead)
    }

    /// Returns the cost that main may have.
    #[inline]
    fn target(&self) -> u64 {
        self.max.saturating_sub(self.share.max(self.room))
    }
}

/// Returns the next action.
#[inline]
pub fn next_action(state: State) -> Action {
    let is_full = state.is_window_full();
    if is_full && state.surplus > 0 {
        return Action::Yield;
    }
    if state.missing() > 0 {
        return if state.main > state.target() { Action::Evict } else { Action::Compare };
    }
    match is_full {
        false => Action::Rest,
        // The window's excess entry takes free room in main.
        true if state.main < state.target() && state.is_filling() => Action::Promote,
        true => Action::Filter,
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
    fn missing_room_evicts_from_the_window_or_main() {
        assert_eq!((FULL.missing(), next_action(FULL)), (1, Action::Compare));
        // Main exceeds its target, so one of its entries is evicted.
        assert_eq!(next_action(State { main: 951, window: 49, ..FULL }), Action::Evict);
        // After the budget was lowered.
        let lowered = State { max: 900, ..FULL };
        assert_eq!((lowered.missing(), next_action(lowered)), (101, Action::Evict));
        let far = State { used: u64::MAX, max: 0, room: u64::MAX, ..FULL };
        assert_eq!(far.missing(), u64::MAX);
    }

    #[test]
    fn nothing_is_done_where_there_is_room_and_the_window_is_within_its_share() {
        assert_eq!(next_action(State { used: 999, window: 49, ..FULL }), Action::Rest);
        assert_eq!(
            next_action(State { used: 0, window: 0, main: 0, share: 0, ..FULL }),
            Action::Rest
        );
    }

    #[test]
    fn window_above_its_share_fills_free_places_or_is_filtered() {
        let filling = State { used: 500, main: 450, window: 50, ..FULL };
        assert_eq!((filling.is_filling(), next_action(filling)), (true, Action::Promote));
        let full = State { used: 998, main: 940, window: 58, ..FULL };
        assert_eq!((full.is_filling(), next_action(full)), (false, Action::Filter));
        // Main is full, though the budget is not: room made ahead of need admits no entry.
        assert_eq!(next_action(State { main: 950, window: 51, used: 700, ..FULL }), Action::Filter);
    }

    #[test]
    fn surplus_of_a_reduced_window_moves_to_main_first() {
        let smaller = State { surplus: 100, window: 150, ..FULL };
        assert_eq!(next_action(smaller), Action::Yield);
        assert_eq!(next_action(State { surplus: 100, window: 49, ..FULL }), Action::Compare);
    }
}
