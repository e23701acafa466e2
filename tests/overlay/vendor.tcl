# Stands in for the vendor's interpreter: tclsh vendor.tcl SCRIPT runs SCRIPT and writes each vendor command as
# a line, words parted by tabs. Objects are their paths, and a path into a cell that is not there is an error.
set cells [dict create]
proc record {args} { puts [join $args \t] }
proc unknown {args} { record {*}$args; return "" }
proc create_bd_cell {args} { record create_bd_cell {*}$args; dict set ::cells [lindex $args end] 1 }
proc need {path} {
  if {![dict exists $::cells [lindex [split $path /] 0]]} { error "no cell of $path" }
  return $path
}
foreach name {get_bd_cells get_bd_pins get_bd_intf_pins get_bd_addr_spaces get_bd_addr_segs} {
  proc $name {path} { need $path }
}
proc current_project {} { return project }
proc current_fileset {} { return sources }
proc get_files {name} { return $name }
proc get_runs {name} { return $name }
proc get_property {name of} { return "100%" }
rename file tcl_file
proc file {what args} {
  if {$what eq "copy"} { record file copy {*}$args } else { uplevel 1 [list tcl_file $what {*}$args] }
}
rename exit tcl_exit
proc exit {{code 0}} { record exit $code; tcl_exit $code }
source [lindex $argv 0]
