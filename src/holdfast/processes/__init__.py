"""Many processes at one job: under a launcher, as a pool of workers, under Ray."""
