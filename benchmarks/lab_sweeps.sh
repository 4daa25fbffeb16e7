#!/bin/sh
# The sweeps of docs/sweeps.md on the scale model; their tables stand in
# runs/lab-*/{sweep,dose,grid}.md. Can be interrupted: run it again to go on.
set -u
holdfast=${HOLDFAST:-holdfast}
doses=0,1%,3%,10%,30%

$holdfast sweep examples/recipes/lab-dose.yaml \
    --set safety.share=$doses --seeds 0,1,2 --output runs/lab-dose
$holdfast sweep examples/recipes/lab-dose.yaml 'mitigations=[mimic, borderline]' \
    borderline.share=10% --set safety.share=$doses --seeds 0,1,2 --output runs/lab-dose-borderline
$holdfast sweep examples/recipes/lab-auto.yaml --output runs/lab-auto
$holdfast sweep examples/recipes/lab-grid.yaml --grid templates \
    --train none,holdfast-default --seeds 0,1,2,3,4 --output runs/lab-grid
