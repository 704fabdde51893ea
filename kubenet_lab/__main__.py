"""`python -m kubenet_lab` is `kubenet-lab`."""

from kubenet_lab.cli import main

main()
