"""Problems, rewards and turns of other libraries. Their code runs in processes that can be killed, never in the driver."""
