//! Checks of what comes in: who the person is, whether jit made the button or the dialog, and
//! whether Mattermost signed the click. A forgery is recorded.

pub mod addresses;
pub mod forgery;
pub mod seal;
pub mod trigger;
pub mod who;
