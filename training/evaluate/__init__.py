"""What a fit is compared with and how sure a comparison is: baselines, cross-validation, importance,
resampling.

May import: training.learn and what it may import.
"""
