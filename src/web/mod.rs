//! What the edges share that are called by people and programs: the API below `auth.path`, and the pages.

pub mod api_key;
pub mod credential;
pub mod device;
pub mod media_type;
