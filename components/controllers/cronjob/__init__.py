"""CronJob (https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/)."""
