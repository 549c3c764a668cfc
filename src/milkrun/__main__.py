from milkrun.cli import main

main()
